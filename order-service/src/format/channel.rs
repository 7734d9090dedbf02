//! What the AsyncAPI document says of the messages that are announced.

use serde_json::{Value, json};
use shared::{
    contract::message::CE_TYPE,
    web::http::{Channel, Direction, Header},
};

use super::Announced;

/// The channel that this service sends to.
#[must_use]
pub fn channel() -> Channel {
    Channel {
        operation: "announceActivity",
        summary: "What happened to an order",
        description: "Each order, completion and cancellation is announced once it is stored, at least once. A message that \
            is sent again is the same, byte for byte: its `messageRef` tells copies apart. The messages of one order may \
            arrive in another order; `orderVersion` tells.",
        key: "The order's reference: the messages of one order share a partition.",
        headers: headers(),
        other_headers: false,
        example: example(),
        ..Channel::of::<Announced<'_>>(Direction::Send)
    }
}

fn headers() -> Vec<Header> {
    let header = |name, description, schema| Header { name, description, schema, required: true };
    let trace = |name, description| Header { name, description, schema: json!({ "minLength": 1 }), required: false };
    vec![
        header("ce_specversion", "The version of CloudEvents.", json!({ "const": "1.0" })),
        header("ce_id", "The messageRef.", json!({ "format": "uuid" })),
        header(
            CE_TYPE,
            "The type's code and the version of the value.",
            json!({ "pattern": r"^summarisation\.[A-Z][A-Z0-9_]{0,63}\.v1$" }),
        ),
        header(
            "ce_source",
            "Who announces: the number of the cell stands behind it, but for the first one.",
            json!({ "pattern": "^/order-service(/([2-9]|[1-9][0-9]+))?$" }),
        ),
        header("ce_time", "The activityAt.", json!({ "format": "date-time" })),
        header("content-type", "What the value is.", json!({ "const": "application/json" })),
        trace("traceparent", "The W3C trace context of the request that placed or changed the order."),
        trace("tracestate", "The same, of vendors."),
    ]
}

fn example() -> (Value, Value) {
    const MESSAGE: &str = "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718";
    const AT: &str = "2026-11-22T17:04:05.123456Z";
    let headers = json!({
        "ce_specversion": "1.0",
        "ce_id": MESSAGE,
        CE_TYPE: "summarisation.ORDER_CREATED.v1",
        "ce_source": "/order-service",
        "ce_time": AT,
        "content-type": "application/json",
    });
    let value = json!({
        "messageRef": MESSAGE,
        "activityTypeCode": "ORDER_CREATED",
        "activityAt": AT,
        "orderRef": "OS000042-ORD",
        "orderVersion": 1,
    });
    (headers, value)
}

//! What the AsyncAPI document says of the messages that are counted: what another service has to send.

use serde_json::{Value, json};
use shared::{
    contract::message::CE_TYPE,
    web::http::{Channel, Direction, Header},
};

use super::Fields;

/// The channel that this service reads.
#[must_use]
pub fn channel() -> Channel {
    Channel {
        operation: "countActivity",
        summary: "An activity that is counted",
        description: "Any service may send: what happened is counted once for the day of `activityAt` in the business time \
            zone. Fields beside these three are ignored. Copies of one `messageRef` count once; another type or time under \
            the same reference is a conflict. What cannot be counted goes to quarantine, and so do days before 2000-01-01 \
            and moments more than a day ahead of the clock.",
        key: "The sender's choice, or none: messages of one key keep their order.",
        headers: vec![Header {
            name: CE_TYPE,
            description: "The version of the value stands behind its last dot. Without this header it is 1.",
            schema: json!({ "pattern": r"\.v1$" }),
            required: false,
        }],
        other_headers: true,
        example: example(),
        ..Channel::of::<Fields<'_>>(Direction::Receive)
    }
}

fn example() -> (Value, Value) {
    let headers = json!({
        "ce_specversion": "1.0",
        "ce_id": "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718",
        CE_TYPE: "summarisation.STOCK_COUNTED.v1",
        "ce_source": "/stock-service",
        "content-type": "application/json",
    });
    let value = json!({
        "messageRef": "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718",
        "activityTypeCode": "STOCK_COUNTED",
        "activityAt": "2026-11-22T17:04:05.123456Z",
    });
    (headers, value)
}

//! How the messages of orders look on the topic. A message that is sent again is the same, byte for byte: a format is
//! never changed.

mod channel;

pub use channel::channel;
use outbox::message::{Format, Message, Service};
use serde::Serialize;
use shared::contract::message::ActivityTypeCode;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{cell, order::OrderRef};

/// Who announces, and how; each cell with a source of its own. The SQL function `announcement` is this format for people
/// with psql.
pub const SERVICE: Service =
    Service { name: "order-service", source: cell::SOURCE, format: Format::Things { key, value } };

/// The number of that format in the tables.
pub const FORMAT: i16 = 1;

/// What happened to an order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderActivity)]
pub(super) struct Announced<'a> {
    /// The message's own name, by which it is counted once.
    message_ref: Uuid,
    /// What happened.
    #[schema(value_type = ActivityTypeCode)]
    activity_type_code: &'a str,
    /// When it happened, by the clock of the database.
    #[schema(value_type = OffsetDateTime)]
    activity_at: String,
    /// The order, and the key of the message.
    order_ref: OrderRef,
    /// 1 when the order was placed, and one more with each change.
    #[schema(minimum = 1)]
    order_version: i32,
}

/// The order's reference, so that one order's messages share a partition of the topic.
fn key(order_id: i64) -> String {
    OrderRef::from_number(order_id).to_string()
}

fn value(message: &Message, order_id: i64, order_version: i32) -> String {
    let value = Announced {
        message_ref: message.message_ref,
        activity_type_code: &message.activity_type_code,
        activity_at: message.activity_at_text(),
        order_ref: OrderRef::from_number(order_id),
        order_version,
    };
    serde_json::to_string(&value).expect("texts and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use outbox::message::Content;
    use shared::runtime::traces::TraceContext;
    use time::macros::datetime;
    use uuid::uuid;

    use super::*;

    /// The bytes of format 1 as they were first released: this test is never changed.
    /// Holds: No format of messages changes once it is released.
    #[test]
    fn format_1_is_what_it_always_was() {
        let message = Message {
            message_ref: uuid!("0192f0c2-0000-7000-8000-00000000002a"),
            log: 7.into(),
            seq: 0,
            content: Content::Thing { number: 42, version: 2 },
            activity_type_code: "ORDER_COMPLETED".into(),
            activity_at: datetime!(2026-11-22 18:04:05.12 +1),
            format: 1,
            trace: TraceContext { parent: Some("00-tp".into()), state: Some("a=b".into()) },
            failures: 0,
        };
        assert_eq!(message.key(&SERVICE), "OS000042-ORD");
        assert_eq!(
            message.value(&SERVICE),
            "{\"messageRef\":\"0192f0c2-0000-7000-8000-00000000002a\",\"activityTypeCode\":\"ORDER_COMPLETED\",\
             \"activityAt\":\"2026-11-22T17:04:05.120000Z\",\"orderRef\":\"OS000042-ORD\",\"orderVersion\":2}"
        );
        let headers: Vec<_> =
            message.headers(&SERVICE).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            headers,
            [
                "ce_specversion: 1.0",
                "ce_id: 0192f0c2-0000-7000-8000-00000000002a",
                "ce_type: summarisation.ORDER_COMPLETED.v1",
                "ce_source: /order-service",
                "ce_time: 2026-11-22T17:04:05.120000Z",
                "content-type: application/json",
                "traceparent: 00-tp",
                "tracestate: a=b",
            ]
        );
    }
}

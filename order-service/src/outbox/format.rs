//! The bytes of a message, made from its row. A message that is sent again is the same, byte for byte:
//! the row says in which format it was first written, and a format is never changed.

use serde::Serialize;
use shared::message::ActivityTypeCode;
use time::{OffsetDateTime, macros::format_description};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Message;
use crate::order::OrderRef;

/// The format of what is written today. One that differs gets the next number and a function of its
/// own; the SQL function `announcement` is this one for people with psql.
pub const FORMAT: i16 = 1;

/// Where all messages say they come from.
pub const SOURCE: &str = "/order-service";

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

impl Message {
    /// The order's reference, so that one order's messages share a partition of the topic.
    #[must_use]
    pub fn key(&self) -> String {
        OrderRef::from_number(self.order_id).to_string()
    }

    #[must_use]
    pub fn value(&self) -> String {
        let value = Announced {
            message_ref: self.message_ref,
            activity_type_code: &self.activity_type_code,
            activity_at: text_of(self.activity_at),
            order_ref: OrderRef::from_number(self.order_id),
            order_version: self.order_version,
        };
        serde_json::to_string(&value).expect("texts and numbers are JSON")
    }

    /// Name and value, in the order in which they are sent.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", self.message_ref.to_string()),
            ("ce_type", format!("summarisation.{}.v1", self.activity_type_code)),
            ("ce_source", SOURCE.to_owned()),
            ("ce_time", text_of(self.activity_at)),
            ("content-type", "application/json".to_owned()),
        ];
        headers.extend(self.trace.parent.clone().map(|parent| ("traceparent", parent)));
        headers.extend(self.trace.state.clone().map(|state| ("tracestate", state)));
        headers
    }
}

fn text_of(moment: OffsetDateTime) -> String {
    let text = moment
        .to_offset(time::UtcOffset::UTC)
        .format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"));
    text.expect("the description has nothing that a moment lacks")
}

#[cfg(test)]
mod tests {
    use shared::traces::TraceContext;
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
            order_id: 42,
            order_version: 2,
            activity_type_code: "ORDER_COMPLETED".into(),
            activity_at: datetime!(2026-11-22 18:04:05.12 +1),
            format: 1,
            trace: TraceContext { parent: Some("00-tp".into()), state: Some("a=b".into()) },
            failures: 0,
        };
        assert_eq!(message.key(), "OS000042-ORD");
        assert_eq!(
            message.value(),
            "{\"messageRef\":\"0192f0c2-0000-7000-8000-00000000002a\",\"activityTypeCode\":\"ORDER_COMPLETED\",\
             \"activityAt\":\"2026-11-22T17:04:05.120000Z\",\"orderRef\":\"OS000042-ORD\",\"orderVersion\":2}"
        );
        let headers: Vec<_> = message.headers().into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
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

//! A message, and its bytes, made from its row. A message that is sent again is the same, byte for byte: the row says
//! in which format it was first written, and a format is never changed.

use serde_json::{Map, Value};
use shared::{contract::message::CE_TYPE, runtime::traces::TraceContext};
use time::{OffsetDateTime, macros::format_description};
use uuid::Uuid;

use crate::instance_id::InstanceId;

/// What happened, and its place in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub message_ref: Uuid,
    pub log: InstanceId,
    pub seq: i64,
    pub content: Content,
    pub activity_type_code: String,
    pub activity_at: OffsetDateTime,
    pub format: i16,
    pub trace: TraceContext,
    /// How often the broker refused it.
    pub failures: i32,
}

/// What a row has of a message beside its type and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// To which thing of the service it happened, and the version that the thing has since. In the tables these are
    /// `order_id` and `order_version`: orders came first.
    Thing { number: i64, version: i32 },
    /// The key, and the value's own fields: a JSON object.
    Given { key: String, fields: String },
}

/// The formats, by the number in the row. One that differs gets the next number.
const OF_THINGS: i16 = 1;
const GIVEN: i16 = 2;

impl Content {
    #[must_use]
    pub fn format(&self) -> i16 {
        match self {
            Self::Thing { .. } => OF_THINGS,
            Self::Given { .. } => GIVEN,
        }
    }

    /// Number and version of a thing of which something was told before.
    #[must_use]
    pub fn later_version(&self) -> Option<(i64, i32)> {
        match self {
            Self::Thing { number, version } if *version > 1 => Some((*number, *version)),
            Self::Thing { .. } | Self::Given { .. } => None,
        }
    }

    /// As the tables have it. What is given is of no thing with a number.
    pub(crate) fn columns(&self) -> (i64, i32, Option<&str>, Option<&str>) {
        match self {
            Self::Thing { number, version } => (*number, *version, None, None),
            Self::Given { key, fields } => (0, 0, Some(key), Some(fields)),
        }
    }
}

/// What of its messages a service stores.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    /// The number of a thing and its version, 12 bytes. The service makes key and value of them.
    Things { key: fn(number: i64) -> String, value: fn(&Message, number: i64, version: i32) -> String },
    /// Key and fields as they were given.
    Given,
}

/// Whose messages they are.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub name: &'static str,
    /// Where all its messages say they come from, and under which it tells of its progress.
    pub source: &'static str,
    pub format: Format,
}

impl Format {
    #[must_use]
    pub fn number(self) -> i16 {
        match self {
            Self::Things { .. } => OF_THINGS,
            Self::Given => GIVEN,
        }
    }
}

impl Message {
    /// What shares a key shares a partition of the topic.
    #[must_use]
    pub fn key(&self, service: &Service) -> String {
        match (&self.content, service.format) {
            (Content::Thing { number, .. }, Format::Things { key, .. }) => key(*number),
            (Content::Given { key, .. }, _) => key.clone(),
            // No service of that format writes such a row.
            (Content::Thing { number, .. }, Format::Given) => number.to_string(),
        }
    }

    #[must_use]
    pub fn value(&self, service: &Service) -> String {
        match (&self.content, service.format) {
            (Content::Thing { number, version }, Format::Things { value, .. }) => value(self, *number, *version),
            (Content::Given { fields, .. }, _) => self.with_fields(fields),
            (Content::Thing { .. }, Format::Given) => self.with_fields("{}"),
        }
    }

    /// Name and value, in the order in which they are sent.
    #[must_use]
    pub fn headers(&self, service: &Service) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", self.message_ref.to_string()),
            (CE_TYPE, format!("summarisation.{}.v1", self.activity_type_code)),
            ("ce_source", service.source.to_owned()),
            ("ce_time", self.activity_at_text()),
            ("content-type", "application/json".to_owned()),
        ];
        headers.extend(self.trace.parent.clone().map(|parent| ("traceparent", parent)));
        headers.extend(self.trace.state.clone().map(|state| ("tracestate", state)));
        headers
    }

    /// The time as messages have it.
    #[must_use]
    pub fn activity_at_text(&self) -> String {
        let text = self
            .activity_at
            .to_offset(time::UtcOffset::UTC)
            .format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"));
        text.expect("the description has nothing that a moment lacks")
    }

    /// What every message has, and then `fields` as they were stored.
    fn with_fields(&self, fields: &str) -> String {
        let own = fields.strip_prefix('{').unwrap_or("}");
        let comma = if own == "}" { "" } else { "," };
        format!(
            r#"{{"messageRef":"{}","activityTypeCode":"{}","activityAt":"{}"{comma}{own}"#,
            self.message_ref,
            self.activity_type_code,
            self.activity_at_text()
        )
    }
}

/// The fields of a message that are given, as they are stored. None where one has a name that the message itself has.
pub(crate) fn stored(fields: &Map<String, Value>) -> Option<String> {
    let is_own = |name: &String| ["messageRef", "activityTypeCode", "activityAt"].contains(&name.as_str());
    let text = serde_json::to_string(fields).expect("an object of values is JSON");
    (!fields.keys().any(is_own)).then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;
    use uuid::uuid;

    use super::*;

    const PARCELS: Service = Service { name: "parcels", source: "/parcels", format: Format::Given };

    fn message(fields: &Value) -> Message {
        Message {
            message_ref: uuid!("0192f0c2-0000-7000-8000-00000000002a"),
            log: 7.into(),
            seq: 0,
            content: Content::Given { key: "P-1".into(), fields: stored(fields.as_object().unwrap()).unwrap() },
            activity_type_code: "PARCEL_SHIPPED".into(),
            activity_at: datetime!(2026-11-22 18:04:05.12 +1),
            format: 2,
            trace: TraceContext { parent: Some("00-tp".into()), state: None },
            failures: 0,
        }
    }

    /// The bytes of format 2 as they were first released: this test is never changed.
    #[test]
    fn format_2_is_what_it_always_was() {
        let message = message(&json!({"parcelRef": "P-1", "weight": 7}));
        assert_eq!(message.key(&PARCELS), "P-1");
        assert_eq!(
            message.value(&PARCELS),
            "{\"messageRef\":\"0192f0c2-0000-7000-8000-00000000002a\",\"activityTypeCode\":\"PARCEL_SHIPPED\",\
             \"activityAt\":\"2026-11-22T17:04:05.120000Z\",\"parcelRef\":\"P-1\",\"weight\":7}"
        );
        let headers: Vec<_> =
            message.headers(&PARCELS).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            headers,
            [
                "ce_specversion: 1.0",
                "ce_id: 0192f0c2-0000-7000-8000-00000000002a",
                "ce_type: summarisation.PARCEL_SHIPPED.v1",
                "ce_source: /parcels",
                "ce_time: 2026-11-22T17:04:05.120000Z",
                "content-type: application/json",
                "traceparent: 00-tp",
            ]
        );
    }

    #[test]
    fn a_message_without_fields_is_an_object_and_its_own_names_are_taken() {
        let value: Value = serde_json::from_str(&message(&json!({})).value(&PARCELS)).unwrap();
        assert_eq!(value["activityTypeCode"], "PARCEL_SHIPPED");
        assert_eq!(value.as_object().unwrap().len(), 3);
        assert_eq!(stored(json!({"activityAt": "2026-01-01T00:00:00Z"}).as_object().unwrap()), None);
    }
}

//! Messages as a service announces them, and as no service should.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::Received;

/// A message that announces an activity, with a reference of its own; its key decides the partition.
/// `at` is an RFC 3339 time.
#[must_use]
pub fn announcement(code: &str, at: &str) -> Received {
    let message_ref = Uuid::now_v7();
    let value = json!({"messageRef": message_ref, "activityTypeCode": code, "activityAt": at,
        "orderRef": "OS000042-ORD", "orderVersion": 1});
    let headers = [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", message_ref.to_string()),
        ("ce_type", format!("summarisation.{code}.v1")),
        ("ce_source", "/order-service".to_owned()),
        ("ce_time", at.to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    Received {
        partition: -1,
        offset: -1,
        key: Some(message_ref.to_string().into_bytes()),
        value: Some(value.to_string().into_bytes()),
        headers: headers.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))).into(),
    }
}

impl Received {
    #[must_use]
    pub fn in_partition(self, partition: i32) -> Self {
        Self { partition, ..self }
    }

    #[must_use]
    pub fn with_value(self, value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..self }
    }

    /// With a field set in its value, which is an object.
    #[must_use]
    pub fn with_field(self, name: &str, value: impl Into<Value>) -> Self {
        let mut object = self.object();
        object[name] = value.into();
        self.with_value(object.to_string())
    }

    #[must_use]
    pub fn without_field(self, name: &str) -> Self {
        let mut object = self.object();
        object.as_object_mut().unwrap().remove(name).expect("the field is there");
        self.with_value(object.to_string())
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    #[must_use]
    pub fn without_headers(self) -> Self {
        Self { headers: Vec::new(), ..self }
    }

    /// The reference in its value, where that can be read.
    #[must_use]
    pub fn message_ref(&self) -> Option<Uuid> {
        self.text("messageRef")?.parse().ok()
    }

    /// A field of its value that is a text.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<String> {
        let value: Value = serde_json::from_slice(self.value.as_deref()?).ok()?;
        Some(value[field].as_str()?.to_owned())
    }

    fn object(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().unwrap()).unwrap()
    }
}

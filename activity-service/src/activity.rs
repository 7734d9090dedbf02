//! One Kafka message, read: an activity that can be counted, or the reason why not.
//!
//! Pure: which types exist and which days are believable is asked later, inside the counting
//! transaction. Only `messageRef`, `activityTypeCode` and `activityAt` are looked at; what else a
//! message holds is its sender's business.

mod channel;
mod field;

use std::borrow::Cow;

pub use channel::channel;
use field::Field;
use serde::{Deserialize, de::IgnoredAny};
use shared::{
    contract::message::{ActivityTypeCode, timestamp},
    web::{http::schema, json::Object},
};
use time::OffsetDateTime;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema, SchemaFormat},
};
use uuid::Uuid;

use crate::{
    place::TopicPlace,
    rejection::{Reason, Rejected},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    pub message_ref: Uuid,
    pub code: ActivityTypeCode,
    pub at: OffsetDateTime,
}

impl Activity {
    #[must_use]
    pub fn rejected(&self, reason: Reason, detail: impl Into<Cow<'static, str>>) -> Rejected {
        let (code, message_ref) = (Some(self.code.clone()), Some(self.message_ref));
        Rejected { reason, detail: detail.into(), code, message_ref }
    }

    /// Where another activity was counted under its reference.
    #[must_use]
    pub fn conflicting(&self) -> Rejected {
        const RULE: &str = "activityTypeCode and activityAt must be those that were counted under this messageRef";
        self.rejected(Reason::ConflictingCopy, RULE)
    }
}

/// An activity and where its message stands.
#[derive(Debug)]
pub struct Received<'a> {
    pub activity: &'a Activity,
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

impl<'a> Received<'a> {
    #[must_use]
    pub fn place(&self) -> TopicPlace<'a> {
        TopicPlace { topic: self.topic, partition: self.partition, offset: self.offset }
    }
}

/// An activity as another service tells it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Activity)]
struct Fields<'a> {
    /// The message's own name, by which it is counted once. Not the nil UUID.
    #[serde(borrow, default)]
    #[schema(schema_with = message_ref, required)]
    message_ref: Field<'a>,
    /// What happened: a registered type.
    #[serde(borrow, default)]
    #[schema(value_type = ActivityTypeCode, required)]
    activity_type_code: Field<'a>,
    /// When it happened. It is counted for the day this is in the business time zone.
    #[serde(borrow, default)]
    #[schema(value_type = OffsetDateTime, required)]
    activity_at: Field<'a>,
    #[serde(borrow, default)]
    #[schema(ignore)]
    specversion: Field<'a>,
}

/// Of a reference: one digit at least is another than 0.
fn message_ref() -> RefOr<Schema> {
    schema::text().format(Some(SchemaFormat::Custom("uuid".into()))).pattern(Some("[1-9a-fA-F]")).into()
}

/// A `CloudEvent` in structured mode: what are headers otherwise stands in the value, and the fields in `data`.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    ce_type: Field<'a>,
    #[serde(borrow)]
    data: Object<Fields<'a>>,
}

/// `ce_type` is the header of that name.
///
/// # Errors
/// Why the message cannot be counted; with its reference and its type where they could be read.
pub fn parse(value: Option<&[u8]>, ce_type: Option<&[u8]>) -> Result<Activity, Rejected> {
    let value = value.ok_or_else(|| rejected(Reason::NoValue, "the message has no value"))?;
    let fields = read(value)?;
    // Told by the value, not by its content type: of what is in quarantine nothing else is kept.
    if fields.message_ref.is_missing() && decoded(&fields.specversion)?.is_some() {
        let event: Object<Event<'_>> = serde_json::from_slice(value).map_err(|_| {
            rejected(Reason::BadField, "data of a CloudEvent must be an object that has each field once")
        })?;
        let of_event = decoded(&event.0.ce_type)?;
        return of(&event.0.data.0, of_event.as_deref().map(str::as_bytes).or(ce_type));
    }
    of(&fields, ce_type)
}

fn of(fields: &Fields<'_>, ce_type: Option<&[u8]>) -> Result<Activity, Rejected> {
    let texts = [decoded(&fields.message_ref)?, decoded(&fields.activity_type_code)?, decoded(&fields.activity_at)?];
    let [message_ref, code, at] = texts.each_ref().map(Option::as_deref);
    let message_ref = message_ref.and_then(reference);
    let code = code.and_then(ActivityTypeCode::parse);
    let at = at.and_then(timestamp);
    check(message_ref, code.clone(), at, ce_type).map_err(|why| Rejected { code, message_ref, ..why })
}

/// A UUID in the usual spelling. The nil one is what a sender has that has forgotten to draw one.
fn reference(text: &str) -> Option<Uuid> {
    // uuid reads other spellings too, none of them of this length.
    let found = Some(text).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok());
    found.filter(|found| !found.is_nil())
}

fn check(
    message_ref: Option<Uuid>,
    code: Option<ActivityTypeCode>,
    at: Option<OffsetDateTime>,
    ce_type: Option<&[u8]>,
) -> Result<Activity, Rejected> {
    // Before the fields: another version may have others.
    if ce_type.is_some_and(|ce_type| !ce_type.ends_with(b".v1")) {
        return Err(rejected(Reason::UnknownVersion, "ce_type, or the type of a CloudEvent, must end in .v1"));
    }
    let bad = |rule| rejected(Reason::BadField, rule);
    let message_ref = message_ref.ok_or_else(|| bad("messageRef must be a UUID, and not the nil one"))?;
    let code = code.ok_or_else(|| bad("activityTypeCode must be a code like ORDER_CREATED"))?;
    let at = at.ok_or_else(|| bad("activityAt must be a timestamp of RFC 3339"))?;
    Ok(Activity { message_ref, code, at })
}

fn read(value: &[u8]) -> Result<Fields<'_>, Rejected> {
    // First, and whole: serde_json does not look into the texts it skips.
    let text = std::str::from_utf8(value).map_err(|_| rejected(Reason::NotJson, "the value must be UTF-8"))?;
    serde_json::from_str::<Object<Fields<'_>>>(text).map(|fields| fields.0).map_err(|error| {
        // A wrong shape may stand before a syntax error.
        if !error.is_data() || serde_json::from_str::<IgnoredAny>(text).is_err() {
            rejected(Reason::NotJson, "the value must be JSON")
        } else {
            rejected(Reason::BadField, "the value must be an object that has each field once")
        }
    })
}

fn decoded<'a>(field: &Field<'a>) -> Result<Option<Cow<'a, str>>, Rejected> {
    field.as_text().map_err(|_| rejected(Reason::NotJson, "the value must be JSON"))
}

fn rejected(reason: Reason, detail: &'static str) -> Rejected {
    Rejected { reason, detail: detail.into(), code: None, message_ref: None }
}

#[cfg(test)]
mod tests;

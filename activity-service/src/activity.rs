//! One Kafka message, read: an activity that can be counted, or the reason why not.
//!
//! Pure: which types exist and which days are believable is asked later, inside the counting
//! transaction. Only `messageRef`, `activityTypeCode` and `activityAt` are looked at; what else a
//! message holds is its sender's business.

mod channel;
mod field;

pub use channel::channel;
use field::Field;
use serde::{Deserialize, de::IgnoredAny};
use shared::{json::Object, message::ActivityTypeCode};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::quarantine::{Reason, Rejected};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    pub message_ref: Uuid,
    pub code: ActivityTypeCode,
    pub at: OffsetDateTime,
}

/// An activity as another service tells it.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Activity)]
struct Fields<'a> {
    /// The message's own name, by which it is counted once.
    #[serde(borrow, default)]
    #[schema(value_type = Uuid, required)]
    message_ref: Field<'a>,
    /// What happened: a registered type.
    #[serde(borrow, default)]
    #[schema(value_type = ActivityTypeCode, required)]
    activity_type_code: Field<'a>,
    /// When it happened. It is counted for the day this is in the business time zone.
    #[serde(borrow, default)]
    #[schema(value_type = OffsetDateTime, required)]
    activity_at: Field<'a>,
}

/// `ce_type` is the header of that name.
///
/// # Errors
/// Why the message cannot be counted.
pub fn parse(value: Option<&[u8]>, ce_type: Option<&[u8]>) -> Result<Activity, Rejected> {
    let value = value.ok_or_else(|| rejected(Reason::NoValue, "the message has no value"))?;
    let fields = read(value)?;
    let code = fields.activity_type_code.as_text().and_then(ActivityTypeCode::parse);
    check(&fields, code.as_ref(), ce_type).map_err(|why| Rejected { code, ..why })
}

fn check(fields: &Fields<'_>, code: Option<&ActivityTypeCode>, ce_type: Option<&[u8]>) -> Result<Activity, Rejected> {
    // Before the fields: another version may have others.
    if ce_type.is_some_and(|ce_type| !ce_type.ends_with(b".v1")) {
        return Err(rejected(Reason::UnknownVersion, "the header ce_type must end in .v1"));
    }
    let message_ref = fields
        .message_ref
        .as_text()
        // uuid reads other spellings too, none of them of this length.
        .filter(|text| text.len() == 36)
        .and_then(|text| Uuid::try_parse(text).ok())
        .ok_or_else(|| rejected(Reason::BadField, "messageRef must be a UUID"))?;
    let code = code.ok_or_else(|| rejected(Reason::BadField, "activityTypeCode must be a code like ORDER_CREATED"))?;
    let at = fields
        .activity_at
        .as_text()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
        .ok_or_else(|| rejected(Reason::BadField, "activityAt must be a timestamp of RFC 3339"))?;
    Ok(Activity { message_ref, code: code.clone(), at })
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

fn rejected(reason: Reason, detail: &'static str) -> Rejected {
    Rejected { reason, detail: detail.into(), code: None, message_ref: None }
}

#[cfg(test)]
mod tests;

//! What announcing and counting agree on: the parts of a message both sides name.

use std::fmt;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::contract::schema;

/// The `CloudEvents` header that carries the type and the version of a message.
pub const CE_TYPE: &str = "ce_type";

/// A time of RFC 3339. Between day and time stands a `T`: `time` would take any byte there.
#[must_use]
pub fn timestamp(text: &str) -> Option<OffsetDateTime> {
    let is_separated = matches!(text.as_bytes().get(10), Some(b'T' | b't'));
    OffsetDateTime::parse(text, &Rfc3339).ok().filter(|_| is_separated)
}

/// What happened: `[A-Z][A-Z0-9_]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivityTypeCode(String);

impl ActivityTypeCode {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_uppercase());
        let rest = bytes.all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        (first && rest && text.len() <= 64).then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActivityTypeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToSchema for ActivityTypeCode {}

impl PartialSchema for ActivityTypeCode {
    fn schema() -> RefOr<Schema> {
        schema::matching("^[A-Z][A-Z0-9_]{0,63}$", "ORDER_CREATED")
    }
}

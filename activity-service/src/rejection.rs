//! Why a message is not counted.

use std::borrow::Cow;

use shared::{contract::message::ActivityTypeCode, web::http::schema};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    NoValue,
    NotJson,
    BadField,
    UnknownType,
    UnknownVersion,
    BadDate,
    /// Its key is new, but was perhaps purged: it may have been counted before.
    TooOld,
    /// Postgres itself refuses it, alone.
    NotStorable,
    /// Another type or time under a reference that was counted.
    ConflictingCopy,
}

impl ToSchema for Reason {
    fn name() -> Cow<'static, str> {
        "QuarantineReason".into()
    }
}

impl PartialSchema for Reason {
    fn schema() -> RefOr<Schema> {
        schema::one_of(Self::ALL.map(Self::as_str))
    }
}

impl Reason {
    pub const ALL: [Self; 9] = [
        Self::NoValue,
        Self::NotJson,
        Self::BadField,
        Self::UnknownType,
        Self::UnknownVersion,
        Self::BadDate,
        Self::TooOld,
        Self::NotStorable,
        Self::ConflictingCopy,
    ];

    /// The words that reasons were before they were codes are read too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text.replace(' ', "_"))
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoValue => "no_value",
            Self::NotJson => "not_json",
            Self::BadField => "bad_field",
            Self::UnknownType => "unknown_type",
            Self::UnknownVersion => "unknown_version",
            Self::BadDate => "bad_date",
            Self::TooOld => "too_old",
            Self::NotStorable => "not_storable",
            Self::ConflictingCopy => "conflicting_copy",
        }
    }
}

/// Why one message is not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub reason: Reason,
    /// The field and the rule, never the value.
    pub detail: Cow<'static, str>,
    /// The type it claims to be, where that could be read.
    pub code: Option<ActivityTypeCode>,
    /// Of a message that could be read.
    pub message_ref: Option<Uuid>,
}

impl Rejected {
    /// For a message that Postgres refuses although it is alone.
    #[must_use]
    pub fn by_the_database(error: &sqlx::Error) -> Self {
        let state = error.as_database_error().and_then(|answer| answer.code()).unwrap_or_default();
        let detail = format!("the database refuses it: SQLSTATE {state}").into();
        Self { reason: Reason::NotStorable, detail, code: None, message_ref: None }
    }
}

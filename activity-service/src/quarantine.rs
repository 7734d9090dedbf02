//! Messages that could not be counted: why, and with everything needed to try them again.

pub mod known;
pub mod listing;
pub mod replay;

use std::borrow::Cow;

pub use listing::{Discard, Entry, Page, State, discard, find, list};
pub use replay::{Replay, Replayed, Scope};
use shared::{http::schema, message::ActivityTypeCode};
use sqlx::PgConnection;
use utoipa::openapi::{RefOr, Schema};
use uuid::Uuid;

use crate::activity::Activity;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::NoValue,
        Self::NotJson,
        Self::BadField,
        Self::UnknownType,
        Self::UnknownVersion,
        Self::BadDate,
        Self::TooOld,
        Self::NotStorable,
    ];

    /// For the document.
    #[must_use]
    pub fn schema() -> RefOr<Schema> {
        schema::one_of(Self::ALL.map(Self::as_str))
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoValue => "no value",
            Self::NotJson => "not json",
            Self::BadField => "bad field",
            Self::UnknownType => "unknown type",
            Self::UnknownVersion => "unknown version",
            Self::BadDate => "bad date",
            Self::TooOld => "too old",
            Self::NotStorable => "not storable",
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
    /// For a message that could be read.
    #[must_use]
    pub fn activity(activity: &Activity, reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        let (code, message_ref) = (Some(activity.code.clone()), Some(activity.message_ref));
        Self { reason, detail: detail.into(), code, message_ref }
    }

    /// For a message that Postgres refuses although it is alone.
    #[must_use]
    pub fn by_the_database(error: &sqlx::Error) -> Self {
        let state = error.as_database_error().and_then(|answer| answer.code()).unwrap_or_default();
        let detail = format!("the database refuses it: SQLSTATE {state}").into();
        Self { reason: Reason::NotStorable, detail, code: None, message_ref: None }
    }
}

/// A message on its way into quarantine.
#[derive(Debug)]
pub struct Kept<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub ce_type: Option<&'a [u8]>,
    pub why: Why<'a>,
}

#[derive(Debug)]
pub enum Why<'a> {
    Rejected(Cow<'a, Rejected>),
    /// It is a copy of this message, whose lot it shares.
    CopyOf(Uuid),
}

impl Why<'_> {
    fn rejected(&self) -> Option<&Rejected> {
        if let Self::Rejected(why) = self { Some(why) } else { None }
    }

    fn original(&self) -> Option<Uuid> {
        if let Self::CopyOf(id) = self { Some(*id) } else { None }
    }
}

/// Keeps messages; answers with the reasons of those that were not kept before.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn keep(transaction: &mut PgConnection, mut messages: Vec<Kept<'_>>) -> Result<Vec<Reason>, sqlx::Error> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    // Every writer takes the rows in one order, so that two of them cannot block each other.
    messages.sort_by_key(|one| (one.topic, one.partition, one.offset));
    let ids: Vec<Uuid> = messages.iter().map(|_| Uuid::now_v7()).collect();
    let topics: Vec<&str> = messages.iter().map(|one| one.topic).collect();
    let partitions: Vec<i32> = messages.iter().map(|one| one.partition).collect();
    let offsets: Vec<i64> = messages.iter().map(|one| one.offset).collect();
    let keys: Vec<Option<&[u8]>> = messages.iter().map(|one| one.key).collect();
    let values: Vec<Option<&[u8]>> = messages.iter().map(|one| one.value).collect();
    let ce_types: Vec<Option<&[u8]>> = messages.iter().map(|one| one.ce_type).collect();
    let rejected: Vec<Option<&Rejected>> = messages.iter().map(|one| one.why.rejected()).collect();
    let reasons: Vec<Option<&str>> = rejected.iter().map(|why| why.map(|why| why.reason.as_str())).collect();
    let details: Vec<Option<&str>> = rejected.iter().map(|why| why.map(|why| why.detail.as_ref())).collect();
    let codes: Vec<Option<&str>> = rejected.iter().map(|why| Some(why.as_ref()?.code.as_ref()?.as_str())).collect();
    let refs: Vec<Option<Uuid>> = rejected.iter().map(|why| why.and_then(|why| why.message_ref)).collect();
    let originals: Vec<Option<Uuid>> = messages.iter().map(|one| one.why.original()).collect();
    let kept = sqlx::query_scalar!(
        r#"
        INSERT INTO quarantine
            (quarantine_id, topic, partition, "offset", key, value, ce_type, reason, detail, activity_type_code,
            message_ref, state, resolved_at, resolved_by, resolution)
        SELECT one.id, one.topic, one.partition, one."offset", one.key, one.value, one.ce_type,
            coalesce(of.reason, one.reason), coalesce(of.detail, one.detail), coalesce(of.activity_type_code, one.code),
            coalesce(of.message_ref, one.message_ref), coalesce(of.state, 'waiting'),
            of.resolved_at, of.resolved_by, of.resolution
        FROM UNNEST(
            $1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[],
            $8::text[], $9::text[], $10::text[], $11::uuid[], $12::uuid[])
            AS one (id, topic, partition, "offset", key, value, ce_type, reason, detail, code, message_ref, original)
        LEFT JOIN quarantine AS of ON of.quarantine_id = one.original
        -- delivered again
        ON CONFLICT (topic, partition, "offset", value_sha256) DO NOTHING
        RETURNING reason
        "#,
        &ids,
        &topics as _,
        &partitions,
        &offsets,
        &keys as _,
        &values as _,
        &ce_types as _,
        &reasons as _,
        &details as _,
        &codes as _,
        &refs as _,
        &originals as _,
    )
    .fetch_all(transaction)
    .await?;
    Ok(kept.iter().filter_map(|reason| Reason::parse(reason)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_as_it_is_written() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("no-value"), None);
    }
}

//! Messages that could not be counted: why, and with everything needed to try them again.

pub mod listing;
pub mod replay;

use std::borrow::Cow;

pub use listing::{Discard, Entry, Page, State, discard, find, list};
pub use replay::{Replay, Replayed, Scope};
use shared::message::ActivityTypeCode;
use sqlx::PgConnection;
use uuid::Uuid;

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

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
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
}

impl Rejected {
    /// For a message that Postgres refuses although it is alone.
    #[must_use]
    pub fn by_the_database(error: &sqlx::Error, code: Option<ActivityTypeCode>) -> Self {
        let state = error.as_database_error().and_then(|answer| answer.code()).unwrap_or_default();
        Self { reason: Reason::NotStorable, detail: format!("the database refuses it: SQLSTATE {state}").into(), code }
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
    pub rejected: Cow<'a, Rejected>,
}

/// Keeps messages; answers with how many were not kept before.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn keep(transaction: &mut PgConnection, mut messages: Vec<Kept<'_>>) -> Result<u64, sqlx::Error> {
    if messages.is_empty() {
        return Ok(0);
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
    let reasons: Vec<&str> = messages.iter().map(|one| one.rejected.reason.as_str()).collect();
    let details: Vec<&str> = messages.iter().map(|one| one.rejected.detail.as_ref()).collect();
    let codes: Vec<Option<&str>> =
        messages.iter().map(|one| one.rejected.code.as_ref().map(ActivityTypeCode::as_str)).collect();
    let done = sqlx::query!(
        r#"
        INSERT INTO quarantine
            (quarantine_id, topic, partition, "offset", key, value, ce_type, reason, detail, activity_type_code)
        SELECT * FROM UNNEST(
            $1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[],
            $8::text[], $9::text[], $10::text[])
        -- delivered again
        ON CONFLICT (topic, partition, "offset", value_sha256) DO NOTHING
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
    )
    .execute(transaction)
    .await?;
    Ok(done.rows_affected())
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

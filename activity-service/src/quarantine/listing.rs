//! The quarantine as operators see it.

use std::borrow::Cow;

use serde::Serialize;
use shared::{
    contract::message::ActivityTypeCode,
    runtime::database::Pool,
    web::{http::schema, paging},
};
use time::OffsetDateTime;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use super::{
    Reason,
    filter::{After, Filter},
};
use crate::key;

/// The longest key that is shown, in bytes.
const LONGEST_KEY: i32 = 1024;

/// A message in quarantine, all but its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QuarantinedMessage)]
pub struct Entry {
    /// Its name in the quarantine.
    pub id: Uuid,
    /// Where it stands: the topic, the partition and the offset in it.
    pub topic: String,
    /// Of the topic.
    pub partition: i32,
    /// In the partition.
    pub offset: i64,
    /// The key of the message, where it is UTF-8 and no longer than 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What it tells of, where that could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ActivityTypeCode>)]
    pub activity_type_code: Option<String>,
    /// The message's own name, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_ref: Option<Uuid>,
    /// Why it could not be counted.
    #[schema(value_type = Reason)]
    pub reason: String,
    /// The reason in words.
    pub detail: String,
    /// SHA-256 of a value that was not kept, in hexadecimal: there are too many of its topic, or it is too large. The
    /// topic has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_sha256: Option<String>,
    /// Whether anything can still be done about it.
    #[schema(value_type = QuarantineState)]
    pub state: String,
    /// How often it came: itself, and its copies at other places.
    #[schema(minimum = 1)]
    pub messages: i64,
    /// When it was put here.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// When the waiting ended. Nothing of this and what follows while it waits.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<OffsetDateTime>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum QuarantineState {
    #[default]
    Waiting,
    Counted,
    Discarded,
}

impl ToSchema for QuarantineState {
    fn name() -> Cow<'static, str> {
        "QuarantineState".into()
    }
}

impl PartialSchema for QuarantineState {
    fn schema() -> RefOr<Schema> {
        schema::one_of(Self::ALL.map(Self::as_str))
    }
}

impl QuarantineState {
    const ALL: [Self; 3] = [Self::Waiting, Self::Counted, Self::Discarded];

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Counted => "counted",
            Self::Discarded => "discarded",
        }
    }
}

/// One page of the list, oldest first.
#[derive(Clone, Debug)]
pub struct Page {
    pub state: QuarantineState,
    pub filter: Filter,
    pub limit: i64,
    pub after: After,
}

impl Page {
    #[must_use]
    pub fn key(&self) -> impl Serialize + use<> {
        (self.state.as_str(), self.filter.key())
    }
}

/// An entry as it is in the table.
struct Row {
    id: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    activity_type_code: Option<String>,
    message_ref: Option<Uuid>,
    reason: String,
    detail: String,
    value_sha256: Option<String>,
    state: String,
    messages: i64,
    received_at: OffsetDateTime,
    resolved_at: Option<OffsetDateTime>,
    resolved_by: Option<String>,
    resolution: Option<String>,
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            topic: row.topic,
            partition: row.partition,
            offset: row.offset,
            key: row.key.and_then(|key| String::from_utf8(key).ok()),
            activity_type_code: row.activity_type_code,
            message_ref: row.message_ref,
            reason: row.reason,
            detail: row.detail,
            value_sha256: row.value_sha256,
            state: row.state,
            messages: row.messages,
            received_at: row.received_at,
            resolved_at: row.resolved_at,
            resolved_by: row.resolved_by,
            resolution: row.resolution,
        }
    }
}

/// Entries as rows, by what follows FROM. $1 is the longest key.
macro_rules! entries {
    ($where:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"SELECT quarantine_id AS id, topic, partition, "offset",
                CASE WHEN octet_length(key) <= $1 THEN key END AS key, activity_type_code, message_ref,
                reason_code AS reason, detail, encode(value_sha256, 'hex') AS value_sha256, state, received_at,
                resolved_at, resolved_by, resolution, (SELECT 1 + coalesce(sum(copy.messages), 0)::bigint
                    FROM quarantine_copies AS copy WHERE copy.quarantine_id = quarantine.quarantine_id) AS "messages!"
            FROM quarantine "# + $where,
            LONGEST_KEY,
            $($argument),*
        )
    };
}

/// A page, and the cursor of the next one where there is more.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, page: &Page) -> Result<(Vec<Entry>, Option<String>), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    key::plan_with_values(&mut transaction).await?;
    let found = entries!(
        r#"WHERE state = $2
            -- planned with these values: those that are null are gone, and one of the indexes fits the others
            AND ($3::timestamptz IS NULL OR (received_at, quarantine_id) > ($3, $4))
            AND ($5::text IS NULL OR reason_code = $5)
            AND ($6::text IS NULL OR activity_type_code = $6)
            AND ($7::text IS NULL OR topic = $7)
            AND ($8::timestamptz IS NULL OR received_at >= $8)
            AND ($9::timestamptz IS NULL OR received_at < $9)
        ORDER BY received_at, quarantine_id LIMIT $10"#,
        page.state.as_str(),
        page.after.time(),
        page.after.1,
        page.filter.reason.map(Reason::as_str),
        page.filter.code.as_ref().map(ActivityTypeCode::as_str),
        page.filter.topic.as_deref(),
        page.filter.from,
        page.filter.to,
        page.limit + 1
    );
    let found = found.fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    let mut found: Vec<Entry> = found.into_iter().map(Entry::from).collect();
    let next = paging::cut(&mut found, page.limit, |last| After::of(last.received_at, last.id), &page.key());
    Ok((found, next))
}

/// The bytes that came, the headers beside them, and the bytes that were counted in their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    pub came: Option<Vec<u8>>,
    pub corrected: Option<Vec<u8>>,
    /// As [`headers::of_json`](crate::headers::of_json) reads them.
    pub headers: Option<String>,
}

/// One message with its values.
///
/// # Errors
/// The database's.
pub async fn find(pool: &Pool, id: Uuid) -> Result<Option<(Entry, Values)>, sqlx::Error> {
    let Some(row) = entries!("WHERE quarantine_id = $2", id).fetch_optional(pool).await? else {
        return Ok(None);
    };
    let values = sqlx::query_as!(
        Values,
        "SELECT value AS came, corrected_value AS corrected, headers FROM quarantine WHERE quarantine_id = $1",
        id
    );
    Ok(values.fetch_optional(pool).await?.map(|values| (Entry::from(row), values)))
}

/// What is or was in quarantine under a reference, at most `limit`.
///
/// # Errors
/// The database's.
pub async fn of_message(pool: &Pool, message_ref: Uuid, limit: i64) -> Result<Vec<Entry>, sqlx::Error> {
    let found = entries!("WHERE message_ref = $2 ORDER BY received_at, quarantine_id LIMIT $3", message_ref, limit);
    Ok(found.fetch_all(pool).await?.into_iter().map(Entry::from).collect())
}

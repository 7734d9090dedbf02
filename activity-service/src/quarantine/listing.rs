//! The quarantine as operators see it, and how one message leaves it for good without being counted.

use serde::Serialize;
use shared::{
    database::Pool,
    http::schema,
    paging::{self, Cursor},
    problem::Problem,
    query::Query,
};
use time::OffsetDateTime;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use super::Reason;

/// A message in quarantine, all but its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QuarantinedMessage)]
pub struct Entry {
    pub id: Uuid,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    #[schema(schema_with = Reason::schema)]
    pub reason: String,
    pub detail: String,
    #[schema(schema_with = State::schema)]
    pub state: String,
    /// How often it came: itself, and its copies at other places.
    #[schema(minimum = 1)]
    pub messages: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// What ended the waiting: when, who and why. Nothing of it while it waits.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    #[default]
    Waiting,
    Counted,
    Discarded,
}

impl State {
    const ALL: [Self; 3] = [Self::Waiting, Self::Counted, Self::Discarded];

    /// For the document.
    #[must_use]
    pub fn schema() -> RefOr<Schema> {
        schema::one_of(Self::ALL.map(Self::as_str))
    }

    fn parse(text: &str) -> Option<Self> {
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
    pub state: State,
    pub reason: Option<Reason>,
    pub limit: i64,
    /// The id of the last message of the page before.
    pub after: Option<Uuid>,
}

impl Page {
    /// # Errors
    /// 400 for what does not parse or is not known, 422 for a limit out of range.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let mut query = Query::parse(query, &["state", "reason", "limit", "cursor"])?;
        let state = query.get("state", "waiting, counted or discarded", State::parse)?.unwrap_or_default();
        let reason = query.get("reason", "a reason like unknown type", Reason::parse)?;
        let mut page = Self { state, reason, limit: query.limit()?, after: None };
        page.after = query.get("cursor", "a cursor of this list", |text| Cursor::decode(text, &page.filter()))?;
        Ok(page)
    }

    fn filter(&self) -> (&'static str, Option<&'static str>) {
        (self.state.as_str(), self.reason.map(Reason::as_str))
    }
}

/// A page, and the cursor of the next one where there is more.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, page: &Page) -> Result<(Vec<Entry>, Option<String>), sqlx::Error> {
    let after = page.after.unwrap_or(Uuid::nil());
    let reason = page.reason.map(Reason::as_str);
    // The state stands in the text of the query: a partial index is of use to no parameter.
    macro_rules! page_of {
        ($state:tt) => {
            sqlx::query_as!(
                Entry,
                "SELECT quarantine_id AS id, topic, partition, \"offset\", reason, detail, state, received_at, "
                    + "resolved_at, resolved_by, resolution, (SELECT 1 + coalesce(sum(copy.messages), 0)::bigint "
                    + "FROM quarantine_copies AS copy WHERE copy.quarantine_id = quarantine.quarantine_id) "
                    + "AS \"messages!\" FROM quarantine "
                    + "WHERE state "
                    + $state
                    + " AND quarantine_id > $1 AND ($2::text IS NULL OR reason = $2) "
                    + "ORDER BY quarantine_id LIMIT $3",
                after,
                reason,
                page.limit + 1
            )
            .fetch_all(pool)
            .await?
        };
    }
    let mut found = match page.state {
        State::Waiting => page_of!("= 'waiting'"),
        State::Counted => page_of!("= 'counted'"),
        State::Discarded => page_of!("= 'discarded'"),
    };
    let next = paging::cut(&mut found, page.limit, |last| last.id, &page.filter());
    Ok((found, next))
}

/// One message, and its value where it had one.
///
/// # Errors
/// The database's.
pub async fn find(pool: &Pool, id: Uuid) -> Result<Option<(Entry, Option<Vec<u8>>)>, sqlx::Error> {
    let found = sqlx::query!(
        r#"
        SELECT quarantine_id AS id, topic, partition, "offset", reason, detail, state, received_at,
            resolved_at, resolved_by, resolution, value, (SELECT 1 + coalesce(sum(copy.messages), 0)::bigint
                FROM quarantine_copies AS copy WHERE copy.quarantine_id = quarantine.quarantine_id) AS "messages!"
        FROM quarantine WHERE quarantine_id = $1
        "#,
        id
    );
    let found = found.fetch_optional(pool).await?;
    Ok(found.map(|row| {
        let entry = Entry {
            id: row.id,
            topic: row.topic,
            partition: row.partition,
            offset: row.offset,
            reason: row.reason,
            detail: row.detail,
            state: row.state,
            messages: row.messages,
            received_at: row.received_at,
            resolved_at: row.resolved_at,
            resolved_by: row.resolved_by,
            resolution: row.resolution,
        };
        (entry, row.value)
    }))
}

/// What became of the wish to discard a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    Done,
    NotWaiting,
    Unknown,
}

/// Ends the waiting of a message and its copies without counting it. The row stays: whether Kafka
/// delivers the message again or somebody sends it again, it is known.
///
/// # Errors
/// The database's.
pub async fn discard(pool: &Pool, id: Uuid, actor: &str, why: &str) -> Result<Discard, sqlx::Error> {
    let discarded = sqlx::query!(
        r#"
        UPDATE quarantine SET state = 'discarded', resolved_at = now(), resolved_by = $2, resolution = $3
        WHERE state = 'waiting' AND quarantine_id = $1
        "#,
        id,
        actor,
        why
    );
    if discarded.execute(pool).await?.rows_affected() == 1 {
        tracing::info!(quarantine.id = %id, actor, "message discarded");
        return Ok(Discard::Done);
    }
    let is_known =
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM quarantine WHERE quarantine_id = $1) AS "is_known!""#, id);
    Ok(if is_known.fetch_one(pool).await? { Discard::NotWaiting } else { Discard::Unknown })
}

/// A reason given for discarding: 1 to 500 visible characters.
#[must_use]
pub fn parse_why(text: &str) -> Option<&str> {
    let text = text.trim();
    ((1..=500).contains(&text.chars().count()) && !text.chars().any(char::is_control)).then_some(text)
}

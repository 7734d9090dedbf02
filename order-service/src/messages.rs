//! What operators see and do of the outbox: look at messages, let failed ones be sent again, and
//! announce a span of time anew after a topic was lost. Nothing here sends: a changed row is nobody's,
//! and a living instance claims it within its next look.

pub mod rebroadcast;

use serde::Serialize;
use shared::{
    http::schema,
    message::ActivityTypeCode,
    paging::{self, Cursor},
    problem::Problem,
    query::Query,
};
use sqlx::PgPool;
use time::OffsetDateTime;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use crate::{metrics::RETRIED, order::OrderRef};

/// Rows of one statement: many enough to be quick, few enough to hold no lock for long.
const PAGE: i64 = 1000;

/// One message of the outbox as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboxMessage {
    pub message_ref: Uuid,
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    /// The key, which is the order's reference.
    #[schema(value_type = OrderRef)]
    pub order_ref: String,
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
    #[schema(schema_with = State::schema)]
    pub state: String,
    /// How often the broker refused it.
    #[schema(minimum = 0)]
    pub failures: i32,
    #[schema(required)]
    pub last_error: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub published_at: Option<OffsetDateTime>,
    /// Where it stands on the topic, once published.
    #[schema(required)]
    pub partition: Option<i32>,
    #[schema(required)]
    pub offset: Option<i64>,
}

/// How many messages are sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Retried {
    pub retried: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    #[default]
    Failed,
    Unpublished,
    Published,
}

impl State {
    const ALL: [Self; 3] = [Self::Failed, Self::Unpublished, Self::Published];

    /// For the document.
    #[must_use]
    pub fn schema() -> RefOr<Schema> {
        schema::one_of(Self::ALL.map(Self::name))
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unpublished => "unpublished",
            Self::Published => "published",
        }
    }
}

/// One page of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    pub state: State,
    pub limit: i64,
    /// The reference of the last message of the page before.
    pub after: Option<Uuid>,
}

impl Page {
    /// # Errors
    /// 400 for what does not parse or is not known, 422 for a limit out of range.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let mut query = Query::parse(query, &["state", "limit", "cursor"])?;
        let state = query.get("state", "failed, unpublished or published", State::parse)?.unwrap_or_default();
        let limit = query.limit()?;
        let after = query.get("cursor", "a cursor of this list", |text| Cursor::decode(text, &state.name()))?;
        Ok(Self { state, limit, after })
    }
}

/// A page, and the cursor of the next one where there is more.
///
/// # Errors
/// The database's.
pub async fn list(pool: &PgPool, page: &Page) -> Result<(Vec<OutboxMessage>, Option<String>), sqlx::Error> {
    let after = page.after.unwrap_or(Uuid::max());
    // The state stands in the text of the query: a partial index is of use to no parameter.
    macro_rules! page_of {
        ($state:tt) => {
            sqlx::query_as!(
                OutboxMessage,
                "SELECT message_ref, activity_type_code, key AS order_ref, placed_at, state, failures, last_error, "
                    + "published_at, partition, \"offset\" FROM outbox WHERE state = '"
                    + $state
                    + "' AND message_ref < $1 "
                    + "ORDER BY message_ref DESC LIMIT $2",
                after,
                page.limit + 1
            )
            .fetch_all(pool)
            .await?
        };
    }
    let mut found = match page.state {
        State::Failed => page_of!("failed"),
        State::Unpublished => page_of!("unpublished"),
        State::Published => page_of!("published"),
    };
    let next = paging::cut(&mut found, page.limit, |last| last.message_ref, &page.state.name());
    Ok((found, next))
}

/// # Errors
/// The database's.
pub async fn find(pool: &PgPool, message_ref: Uuid) -> Result<Option<OutboxMessage>, sqlx::Error> {
    sqlx::query_as!(
        OutboxMessage,
        r#"
        SELECT message_ref, activity_type_code, key AS order_ref, placed_at, state, failures, last_error,
            published_at, partition, "offset"
        FROM outbox WHERE message_ref = $1
        "#,
        message_ref
    )
    .fetch_optional(pool)
    .await
}

/// What became of the wish to send one message again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retry {
    Accepted(Box<OutboxMessage>),
    NotFailed,
    Unknown,
}

/// Lets one failed message be sent again.
///
/// # Errors
/// The database's.
pub async fn retry(pool: &PgPool, message_ref: Uuid) -> Result<Retry, sqlx::Error> {
    let reset = sqlx::query_as!(
        OutboxMessage,
        r#"
        UPDATE outbox SET state = 'unpublished', failures = 0, last_error = NULL, retry_at = NULL, owner = 0
        WHERE message_ref = $1 AND state = 'failed'
        RETURNING message_ref, activity_type_code, key AS order_ref, placed_at, state, failures, last_error,
            published_at, partition, "offset"
        "#,
        message_ref
    );
    if let Some(message) = reset.fetch_optional(pool).await? {
        RETRIED.add(1);
        return Ok(Retry::Accepted(Box::new(message)));
    }
    Ok(if find(pool, message_ref).await?.is_some() { Retry::NotFailed } else { Retry::Unknown })
}

/// Lets every failed message be sent again; how many those were. One pass: what fails again
/// meanwhile is not taken twice.
///
/// # Errors
/// The database's; what was reset before stays reset.
pub async fn retry_all(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let (mut retried, mut after) = (0, Uuid::nil());
    loop {
        let page = sqlx::query_scalar!(
            r#"
            UPDATE outbox SET state = 'unpublished', failures = 0, last_error = NULL, retry_at = NULL, owner = 0
            WHERE message_ref = ANY (ARRAY(
                SELECT message_ref FROM outbox WHERE state = 'failed' AND message_ref > $1
                ORDER BY message_ref LIMIT $2 FOR UPDATE
            ))
            RETURNING message_ref
            "#,
            after,
            PAGE
        );
        let page = page.fetch_all(pool).await?;
        let Some(last) = page.iter().max() else { return Ok(retried) };
        after = *last;
        RETRIED.add(page.len() as u64);
        retried += u64::try_from(page.len()).unwrap_or(u64::MAX);
    }
}

/// How many messages have failed.
///
/// # Errors
/// The database's.
pub async fn count_failed(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM outbox WHERE state = 'failed'"#);
    Ok(count.fetch_one(pool).await?.unsigned_abs())
}

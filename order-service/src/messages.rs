//! What operators see and do of the outbox: look at messages, let failed ones be sent again, and
//! publish a span of time once more after a topic was lost. Nothing here sends: a living instance finds
//! what is wanted at its next look.

mod listing;
pub mod rebroadcast;

pub use listing::{Page, Place, find, list};
use serde::Serialize;
use shared::{database::Pool, http::schema, message::ActivityTypeCode};
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
pub async fn retry(pool: &Pool, message_ref: Uuid) -> Result<Retry, sqlx::Error> {
    let reset = sqlx::query!(
        r#"
        UPDATE rejected_messages SET state = 'retrying', failures = 0, last_error = NULL, retry_at = NULL, holder = NULL
        WHERE message_ref = $1 AND state = 'failed'
        "#,
        message_ref
    );
    if reset.execute(pool).await?.rows_affected() == 0 {
        return Ok(if find(pool, message_ref).await?.is_some() { Retry::NotFailed } else { Retry::Unknown });
    }
    RETRIED.add(1);
    // It may be published by now, and past its retention.
    Ok(find(pool, message_ref).await?.map_or(Retry::Unknown, |message| Retry::Accepted(Box::new(message))))
}

/// Lets every failed message be sent again; how many those were. One pass: what fails again
/// meanwhile is not taken twice.
///
/// # Errors
/// The database's; what was reset before stays reset.
pub async fn retry_all(pool: &Pool) -> Result<u64, sqlx::Error> {
    let (mut retried, mut after) = (0, Uuid::nil());
    loop {
        let page = sqlx::query_scalar!(
            r#"
            UPDATE rejected_messages SET state = 'retrying', failures = 0, last_error = NULL, retry_at = NULL, holder = NULL
            WHERE message_ref = ANY (ARRAY(
                SELECT message_ref FROM rejected_messages WHERE state = 'failed' AND message_ref > $1
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
pub async fn count_failed(pool: &Pool) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM rejected_messages WHERE state = 'failed'"#);
    Ok(count.fetch_one(pool).await?.unsigned_abs())
}

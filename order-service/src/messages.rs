//! What operators see and do of the outbox: look at messages, let failed ones be sent again or give them up, and
//! publish a span of time once more after a topic was lost. Nothing here sends: a living instance finds
//! what is wanted at its next look.

mod filter;
pub mod history;
mod listing;
pub mod verify;

use std::borrow::Cow;

pub(crate) use filter::MOST_OF_AN_ERROR;
pub use filter::{MessageFilter, part_of_error};
pub use listing::{MessagePage, PlaceInMessages, find, list};
use outbox::{
    metrics::{DISCARDED, RETRIED},
    rebroadcast::Span,
};
use serde::Serialize;
use shared::{
    contract::message::ActivityTypeCode,
    operators::audit::{Action, Author},
    runtime::database::Pool,
    web::http::schema,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

use crate::{audit, order::OrderRef};

/// Rows of one statement: many enough to be quick, few enough to hold no lock for long.
const PAGE: i64 = 1000;

/// One message of the outbox as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboxMessage {
    /// Its own name.
    pub message_ref: Uuid,
    /// What it announces.
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    /// The key, which is the order's reference.
    #[schema(value_type = OrderRef)]
    pub order_ref: String,
    /// When the order was placed or changed.
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
    /// How far it has come.
    #[schema(value_type = State)]
    pub state: String,
    /// How often the broker refused it.
    #[schema(minimum = 0)]
    pub failures: i32,
    /// Why the broker refused it last; null where it never did.
    #[schema(required)]
    pub last_error: Option<String>,
    /// When the broker acknowledged it; null where it has not.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub published_at: Option<OffsetDateTime>,
    /// Where it stands on the topic, once published.
    #[schema(required)]
    pub partition: Option<i32>,
    /// Its place in the partition, once published.
    #[schema(required)]
    pub offset: Option<i64>,
    /// When it was discarded. Nothing of this and what follows unless it was.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub discarded_at: Option<OffsetDateTime>,
    /// Who discarded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discard_reason: Option<String>,
}

/// How many messages are sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Retried {
    /// How many.
    pub retried: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum State {
    #[default]
    Failed,
    Unpublished,
    Published,
    Discarded,
}

impl ToSchema for State {
    fn name() -> Cow<'static, str> {
        "MessageState".into()
    }
}

impl PartialSchema for State {
    fn schema() -> RefOr<Schema> {
        schema::one_of(Self::ALL.map(Self::name))
    }
}

impl State {
    const ALL: [Self; 4] = [Self::Failed, Self::Unpublished, Self::Published, Self::Discarded];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unpublished => "unpublished",
            Self::Published => "published",
            Self::Discarded => "discarded",
        }
    }
}

/// What became of the wish to send a message again, or to give it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Accepted(Box<OutboxMessage>),
    NotFailed,
    Unknown,
}

/// Lets one failed message be sent again.
///
/// # Errors
/// The database's.
pub async fn retry(
    pool: &Pool,
    message_ref: Uuid,
    author: &Author,
    reason: Option<&str>,
) -> Result<Decision, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let reset = sqlx::query!(
        r#"
        UPDATE rejected_messages SET state = 'retrying', failures = 0, last_error = NULL, retry_at = NULL, holder = NULL
        WHERE message_ref = $1 AND state = 'failed'
        "#,
        message_ref
    );
    if reset.execute(&mut *transaction).await?.rows_affected() == 1 {
        let subject = [message_ref.to_string()];
        audit::record(&mut transaction, author, Action::MessageRetried, &subject, reason).await?;
        transaction.commit().await?;
        RETRIED.add(1);
        return decided(pool, message_ref).await;
    }
    transaction.rollback().await?;
    undecided(pool, message_ref).await
}

/// Gives one failed message up: it is never sent, and stays to be looked at.
///
/// # Errors
/// The database's.
pub async fn discard(pool: &Pool, message_ref: Uuid, author: &Author, reason: &str) -> Result<Decision, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let discarded = sqlx::query!(
        r#"
        UPDATE rejected_messages SET state = 'discarded', discarded_at = now(), discarded_by = $2, discard_reason = $3
        WHERE message_ref = $1 AND state = 'failed'
        "#,
        message_ref,
        author.actor,
        reason
    );
    if discarded.execute(&mut *transaction).await?.rows_affected() == 1 {
        let subject = [message_ref.to_string()];
        audit::record(&mut transaction, author, Action::MessageDiscarded, &subject, Some(reason)).await?;
        transaction.commit().await?;
        DISCARDED.add(1);
        tracing::warn!(message.r#ref = %message_ref, actor = author.actor, "a failed message was discarded");
        return decided(pool, message_ref).await;
    }
    transaction.rollback().await?;
    undecided(pool, message_ref).await
}

/// Lets what is published of a span of time be published once more.
///
/// # Errors
/// The database's.
pub async fn rebroadcast(pool: &Pool, span: Span, author: &Author) -> Result<(), sqlx::Error> {
    let subject = [span.from, span.to].map(|end| end.format(&Rfc3339).unwrap_or_default()).join("/");
    let mut transaction = pool.begin().await?;
    outbox::rebroadcast::request(&mut transaction, span).await?;
    audit::record(&mut transaction, author, Action::MessagesRebroadcast, &[subject], None).await?;
    transaction.commit().await
}

async fn decided(pool: &Pool, message_ref: Uuid) -> Result<Decision, sqlx::Error> {
    // It may be published by now, and past its retention.
    Ok(find(pool, message_ref).await?.map_or(Decision::Unknown, |message| Decision::Accepted(Box::new(message))))
}

async fn undecided(pool: &Pool, message_ref: Uuid) -> Result<Decision, sqlx::Error> {
    Ok(if find(pool, message_ref).await?.is_some() { Decision::NotFailed } else { Decision::Unknown })
}

/// Lets every failed message that the filter chooses be sent again; how many those were. One pass: what fails again
/// meanwhile is not taken twice. After each page `tell` hears how many those are by now.
///
/// # Errors
/// The database's; what was reset before stays reset.
pub async fn retry_all(
    pool: &Pool,
    filter: &MessageFilter,
    author: &Author,
    reason: Option<&str>,
    mut tell: impl FnMut(u64),
) -> Result<u64, sqlx::Error> {
    let (mut retried, mut after) = (0, Uuid::nil());
    loop {
        let mut transaction = pool.begin().await?;
        let page = sqlx::query_scalar!(
            r#"
            UPDATE rejected_messages SET state = 'retrying', failures = 0, last_error = NULL, retry_at = NULL, holder = NULL
            WHERE message_ref = ANY (ARRAY(
                SELECT message_ref FROM rejected_messages WHERE state = 'failed' AND message_ref > $1
                    AND ($3::bigint IS NULL OR order_id = $3) AND ($4::text IS NULL OR activity_type_code = $4)
                    AND activity_at >= $5 AND activity_at < $6
                    AND ($7::text IS NULL OR position(lower($7) IN lower(last_error)) > 0)
                ORDER BY message_ref LIMIT $2 FOR UPDATE
            ))
            RETURNING message_ref
            "#,
            after,
            PAGE,
            filter.order_id,
            filter.activity_type_code.as_deref() as _,
            filter.from(),
            filter.to(),
            filter.error.as_deref() as _
        );
        let page = page.fetch_all(&mut *transaction).await?;
        let Some(last) = page.iter().max() else { return Ok(retried) };
        after = *last;
        let subjects: Vec<String> = page.iter().map(Uuid::to_string).collect();
        audit::record(&mut transaction, author, Action::MessageRetried, &subjects, reason).await?;
        transaction.commit().await?;
        RETRIED.add(page.len() as u64);
        retried += u64::try_from(page.len()).unwrap_or(u64::MAX);
        tell(retried);
    }
}

/// How many failed messages the filter chooses.
///
/// # Errors
/// The database's.
pub async fn count_failed(pool: &Pool, filter: &MessageFilter) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "count!" FROM rejected_messages WHERE state = 'failed'
            AND ($1::bigint IS NULL OR order_id = $1) AND ($2::text IS NULL OR activity_type_code = $2)
            AND activity_at >= $3 AND activity_at < $4
            AND ($5::text IS NULL OR position(lower($5) IN lower(last_error)) > 0)
        "#,
        filter.order_id,
        filter.activity_type_code.as_deref() as _,
        filter.from(),
        filter.to(),
        filter.error.as_deref() as _
    );
    Ok(count.fetch_one(pool).await?.unsigned_abs())
}

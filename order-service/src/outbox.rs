//! The table of messages: the truth about what was and what is to be sent.
//!
//! Rows are written by the placement statement. Here is the rest of their life: claimed by an
//! owner, marked by that owner as published or failed. Marks touch only rows of the identity that
//! makes them and carry absolute values, so that repeating one of unknown outcome is harmless.

use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::instance::InstanceId;

/// A message as it goes on the wire, and how often the broker refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub message_ref: Uuid,
    pub key: String,
    pub value: String,
    /// Name, value, name, value, ...
    pub headers: Vec<String>,
    pub failures: i32,
}

impl Message {
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str()))
    }
}

/// Where an acknowledged message is.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub message_ref: Uuid,
    pub partition: i32,
    pub offset: i64,
}

/// What becomes of a message that the broker refused.
#[derive(Clone, Debug)]
pub struct Rejected {
    pub message_ref: Uuid,
    pub failures: i32,
    pub error: String,
    pub fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Stays with its owner, who tries again.
    Waits,
    /// Waits in the table, owned by nobody, until the time given.
    WaitsInTable(OffsetDateTime),
    /// At the threshold: stays as it is until an operator retries it.
    Failed,
}

impl Fate {
    /// Under which it is counted.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::WaitsInTable(_) => "waits in the table",
            Self::Failed => "failed",
        }
    }
}

/// The ended identities that own unpublished rows.
///
/// # Errors
/// The database's.
pub async fn left_behind(pool: &PgPool) -> Result<Vec<InstanceId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        r#"
        SELECT instance_id FROM instances
        WHERE ended_at IS NOT NULL
            -- One probe of the partial index for each: nothing else has a least owner at hand. EXISTS may
            -- read the whole table for an owner who has no rows, where statistics know one owner only.
            AND instance_id = (SELECT min(owner) FROM outbox WHERE owner >= instance_id AND state = 'unpublished')
        "#
    )
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(InstanceId::from).collect())
}

/// Makes `to` the owner of a page of unpublished rows of `from`, in the order of their references
/// and behind `after`. Empty: nothing is left there, or others are just claiming it.
///
/// # Errors
/// The database's. After [`shared::database::Failure::Outage`] nobody knows what `to` owns.
pub async fn claim(
    connection: &mut PgConnection,
    from: InstanceId,
    to: InstanceId,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Message>, sqlx::Error> {
    let mut messages = sqlx::query_as!(
        Message,
        r#"
        UPDATE outbox SET owner = $2, retry_at = NULL
        -- The page is an array: joined to it, the table would be read from its beginning for every page.
        -- Its rows are locked, so they are still what they were found to be.
        WHERE message_ref = ANY (ARRAY(
            SELECT message_ref FROM outbox
            -- A range and an order that only the partial index has: by the primary key the way to the
            -- first row may lead past everything that is published.
            WHERE (owner, message_ref) > ($1, $3) AND owner <= $1 AND state = 'unpublished'
                AND (retry_at IS NULL OR retry_at <= now())
            ORDER BY owner, message_ref LIMIT $4
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING message_ref, key, value, headers, failures
        "#,
        from.number(),
        to.number(),
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    messages.sort_unstable_by_key(|message| message.message_ref);
    Ok(messages)
}

/// Marks acknowledged messages. The number marked is that of the rows that `owner` still owned.
///
/// # Errors
/// The database's.
pub async fn mark_published(pool: &PgPool, owner: InstanceId, published: &[Published]) -> Result<u64, sqlx::Error> {
    let refs: Vec<_> = published.iter().map(|one| one.message_ref).collect();
    let partitions: Vec<_> = published.iter().map(|one| one.partition).collect();
    let offsets: Vec<_> = published.iter().map(|one| one.offset).collect();
    let done = sqlx::query!(
        r#"
        UPDATE outbox o SET state = 'published', published_at = now(), partition = d.partition, "offset" = d."offset"
        FROM UNNEST($2::uuid[], $3::integer[], $4::bigint[]) AS d (message_ref, partition, "offset")
        WHERE o.message_ref = d.message_ref AND o.owner = $1
        "#,
        owner.number(),
        &refs,
        &partitions,
        &offsets
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Records rejections. The number recorded is that of the rows that `owner` still owned.
///
/// # Errors
/// The database's.
pub async fn record_rejections(pool: &PgPool, owner: InstanceId, rejected: &[Rejected]) -> Result<u64, sqlx::Error> {
    let refs: Vec<_> = rejected.iter().map(|one| one.message_ref).collect();
    let failures: Vec<_> = rejected.iter().map(|one| one.failures).collect();
    let errors: Vec<_> = rejected.iter().map(|one| one.error.clone()).collect();
    let failed: Vec<_> = rejected.iter().map(|one| one.fate == Fate::Failed).collect();
    let retry_at: Vec<_> = rejected
        .iter()
        .map(|one| match one.fate {
            Fate::WaitsInTable(until) => Some(until),
            Fate::Waits | Fate::Failed => None,
        })
        .collect();
    let done = sqlx::query!(
        r#"
        UPDATE outbox o SET
            failures = d.failures,
            last_error = d.error,
            state = CASE WHEN d.failed THEN 'failed' ELSE 'unpublished' END,
            retry_at = d.retry_at,
            owner = CASE WHEN d.retry_at IS NULL THEN o.owner ELSE 0 END
        FROM UNNEST($2::uuid[], $3::integer[], $4::text[], $5::boolean[], $6::timestamptz[])
            AS d (message_ref, failures, error, failed, retry_at)
        -- Repeated after an unknown outcome it changes nothing: the row may have moved on since.
        WHERE o.message_ref = d.message_ref AND o.owner = $1 AND o.failures < d.failures
        "#,
        owner.number(),
        &refs,
        &failures,
        &errors,
        &failed,
        &retry_at as &[Option<OffsetDateTime>]
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

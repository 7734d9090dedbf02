//! Offsets that were passed without a message. A gap is written by the transaction that passes it, so that it
//! outlives whoever found it, and stays open until an operator has looked after it and says why it may be closed.

use std::fmt;

use serde::Serialize;
use shared::{
    operators::audit::{Action, Author},
    runtime::database::Pool,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    audit,
    place::{Jump, Partition},
};

/// More than this many are checked in several looks.
const AT_ONCE: i64 = 1000;

/// A gap of which nobody knows yet whether there were messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchecked {
    pub id: i64,
    pub partition: Partition,
    pub jump: Jump,
}

/// A gap as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConsumptionGap)]
pub struct Gap {
    pub id: i64,
    pub topic: String,
    #[schema(minimum = 0)]
    pub partition: i32,
    /// The first offset that is missing.
    #[schema(minimum = 0)]
    pub from: i64,
    /// The first offset behind the gap.
    #[schema(minimum = 1)]
    pub to: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub found_at: OffsetDateTime,
    pub state: String,
    /// What ended it: when, who and why. Nothing of it before.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum GapState {
    /// Not yet compared with what the topic has.
    Unchecked,
    #[default]
    Open,
    Closed,
}

impl GapState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for GapState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes down what a transaction jumps over.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn note(
    transaction: &mut PgConnection,
    jumps: &[(Partition, Jump)],
    state: GapState,
) -> Result<(), sqlx::Error> {
    if jumps.is_empty() {
        return Ok(());
    }
    let (topics, partitions) = Partition::columns(jumps.iter().map(|(partition, _)| partition));
    let froms: Vec<i64> = jumps.iter().map(|(_, jump)| jump.expected).collect();
    let tos: Vec<i64> = jumps.iter().map(|(_, jump)| jump.came).collect();
    sqlx::query!(
        r#"
        INSERT INTO consumption_gaps AS known (topic, partition, from_offset, to_offset, state)
        SELECT topic, partition, from_offset, to_offset, $5
        FROM UNNEST($1::text[], $2::int[], $3::bigint[], $4::bigint[]) AS gap (topic, partition, from_offset, to_offset)
        ORDER BY topic, partition, from_offset
        -- The same of a topic that was made anew may reach further.
        ON CONFLICT (topic, partition, from_offset) WHERE state <> 'closed'
            DO UPDATE SET to_offset = excluded.to_offset WHERE known.to_offset < excluded.to_offset
        "#,
        &topics as _,
        &partitions,
        &froms,
        &tos,
        state.as_str(),
    )
    .execute(transaction)
    .await?;
    Ok(())
}

/// The gaps of `partitions` that are still to be checked, the oldest first.
///
/// # Errors
/// As Postgres answers.
pub async fn unchecked(connection: &mut PgConnection, partitions: &[Partition]) -> Result<Vec<Unchecked>, sqlx::Error> {
    let (topics, numbers) = Partition::columns(partitions);
    let rows = sqlx::query!(
        r#"
        SELECT gap_id, topic, partition, from_offset, to_offset FROM consumption_gaps
        WHERE state = 'unchecked' AND (topic, partition) IN (SELECT * FROM UNNEST($1::text[], $2::int[]))
        ORDER BY gap_id LIMIT $3
        "#,
        &topics as _,
        &numbers,
        AT_ONCE
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    let gaps = rows.map(|row| Unchecked {
        id: row.gap_id,
        partition: Partition::new(row.topic, row.partition),
        jump: Jump { expected: row.from_offset, came: row.to_offset },
    });
    Ok(gaps.collect())
}

/// Opens a gap whose messages were deleted up to `to`. False where another member has done so.
///
/// # Errors
/// As Postgres answers.
pub async fn open(pool: &Pool, id: i64, to: i64) -> Result<bool, sqlx::Error> {
    let opened = sqlx::query!(
        "UPDATE consumption_gaps SET state = 'open', to_offset = $2 WHERE gap_id = $1 AND state = 'unchecked'",
        id,
        to
    );
    Ok(opened.execute(pool).await?.rows_affected() == 1)
}

/// Forgets gaps in which there never were messages.
///
/// # Errors
/// As Postgres answers.
pub async fn forget(pool: &Pool, ids: &[i64]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let forgotten = sqlx::query!("DELETE FROM consumption_gaps WHERE gap_id = ANY($1) AND state = 'unchecked'", ids);
    // Another member may have done so.
    forgotten.execute(pool).await?;
    Ok(())
}

/// How many gaps are open, and how many offsets there are in them. Counting ends at 10,001 gaps.
///
/// # Errors
/// As Postgres answers.
pub async fn how_many(connection: &mut PgConnection) -> Result<(u64, u64), sqlx::Error> {
    let row = sqlx::query!(
        r#"
        SELECT count(*) AS "gaps!", coalesce(sum(to_offset - from_offset), 0)::bigint AS "offsets!"
        FROM (SELECT from_offset, to_offset FROM consumption_gaps WHERE state = 'open' LIMIT 10001) AS bounded
        "#
    );
    let row = row.fetch_one(connection).await?;
    Ok((row.gaps.unsigned_abs(), row.offsets.unsigned_abs()))
}

/// Gaps in a state, the oldest first.
///
/// # Errors
/// As Postgres answers.
pub async fn list(pool: &Pool, state: GapState, limit: i64) -> Result<Vec<Gap>, sqlx::Error> {
    sqlx::query_as!(
        Gap,
        r#"
        SELECT gap_id AS id, topic, partition, from_offset AS "from", to_offset AS "to", found_at, state,
            closed_at, closed_by, reason
        FROM consumption_gaps WHERE state = $1 ORDER BY gap_id LIMIT $2
        "#,
        state.as_str(),
        limit
    )
    .fetch_all(pool)
    .await
}

/// One gap.
///
/// # Errors
/// As Postgres answers.
pub async fn find(pool: &Pool, id: i64) -> Result<Option<Gap>, sqlx::Error> {
    sqlx::query_as!(
        Gap,
        r#"
        SELECT gap_id AS id, topic, partition, from_offset AS "from", to_offset AS "to", found_at, state,
            closed_at, closed_by, reason
        FROM consumption_gaps WHERE gap_id = $1
        "#,
        id
    )
    .fetch_optional(pool)
    .await
}

/// Closes an open gap. False where there is none of this id.
///
/// # Errors
/// As Postgres answers.
pub async fn close(pool: &Pool, id: i64, author: &Author, reason: &str) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let closed = sqlx::query!(
        r#"
        UPDATE consumption_gaps SET state = 'closed', closed_at = now(), closed_by = $2, reason = $3
        WHERE gap_id = $1 AND state = 'open'
        "#,
        id,
        author.actor,
        reason
    );
    let is_closed = closed.execute(&mut *transaction).await?.rows_affected() == 1;
    if is_closed {
        audit::record(&mut transaction, author, Action::GapClosed, &[id.to_string()], Some(reason)).await?;
    }
    transaction.commit().await?;
    Ok(is_closed)
}

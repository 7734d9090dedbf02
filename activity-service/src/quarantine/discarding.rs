//! How messages leave the quarantine for good without being counted. Their rows stay: whether Kafka delivers such
//! a message again or somebody sends it again, it is known.

use serde::Serialize;
use shared::{
    operators::audit::{Action, Author},
    runtime::database::Pool,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pass, filter::PageEntry};
use crate::audit;

/// Messages of one step: some 20 ms of work.
const STEP_MESSAGES: i64 = 1000;

/// What became of the wish to discard a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    Done,
    NotWaiting,
    Unknown,
}

/// Ends the waiting of a message and its copies.
///
/// # Errors
/// The database's.
pub async fn discard(pool: &Pool, id: Uuid, author: &Author, why: &str) -> Result<Discard, sqlx::Error> {
    if discard_these(pool, &[id], author, why).await? == 1 {
        tracing::info!(quarantine.id = %id, actor = author.actor, "message discarded");
        return Ok(Discard::Done);
    }
    let is_known =
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM quarantine WHERE quarantine_id = $1) AS "is_known!""#, id);
    Ok(if is_known.fetch_one(pool).await? { Discard::NotWaiting } else { Discard::Unknown })
}

/// How many different messages were discarded, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Discarded {
    pub discarded: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub looked_at: u64,
    pub discarded: Discarded,
}

/// One pass over the messages of a filter, in steps that are a transaction each.
#[derive(Debug)]
pub struct Discarding<'a> {
    pub pool: &'a Pool,
    pub pass: Pass,
    /// Who wants it, and why: kept with each message.
    pub author: &'a Author,
    pub why: &'a str,
    pub dry_run: bool,
}

impl Discarding<'_> {
    /// The next step, of at most `limit` messages; None when the pass is over.
    ///
    /// # Errors
    /// The database's. What earlier steps did stays done.
    pub async fn step(&mut self, limit: i64) -> Result<Option<Step>, sqlx::Error> {
        let found = self.pass.look(self.pool, limit.min(STEP_MESSAGES)).await?;
        let ids: Vec<Uuid> = found.iter().map(|one: &PageEntry| one.id).collect();
        let discarded = match ids.len() as u64 {
            0 => 0,
            all if self.dry_run => all,
            _ => discard_these(self.pool, &ids, self.author, self.why).await?,
        };
        self.pass.got_to(found.last());
        let step = Step { looked_at: ids.len() as u64, discarded: Discarded { discarded } };
        Ok((!ids.is_empty()).then_some(step))
    }
}

async fn discard_these(pool: &Pool, ids: &[Uuid], author: &Author, why: &str) -> Result<u64, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let discarded = sqlx::query_scalar!(
        r#"
        WITH waiting AS (
            SELECT quarantine_id FROM quarantine WHERE quarantine_id = ANY ($1) AND state = 'waiting'
            -- in the order of everybody else
            ORDER BY quarantine_id FOR NO KEY UPDATE
        )
        UPDATE quarantine SET state = 'discarded', resolved_at = now(), resolved_by = $2, resolution = $3
        FROM waiting WHERE quarantine.quarantine_id = waiting.quarantine_id
        RETURNING quarantine.quarantine_id
        "#,
        ids,
        author.actor,
        why
    );
    let discarded = discarded.fetch_all(&mut *transaction).await?;
    let subjects: Vec<String> = discarded.iter().map(Uuid::to_string).collect();
    audit::record(&mut transaction, author, Action::QuarantineDiscarded, &subjects, Some(why)).await?;
    transaction.commit().await?;
    Ok(subjects.len() as u64)
}

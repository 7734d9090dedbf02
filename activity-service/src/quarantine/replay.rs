//! Messages in quarantine are tried again, by the rules and the statement that count what is read
//! from Kafka: what can be counted now is counted once, and what cannot goes on waiting.
//!
//! Step by step, each a transaction of its own: whoever stops in between has done a part, and doing
//! it all again does the rest.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use shared::{
    database::{Failure, Pool},
    message::ActivityTypeCode,
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Reason, Rejected};
use crate::{
    activity::{self, Activity},
    admission::{Admission, expect_rows},
    key,
    metrics::REPLAYED,
    statistics::{self, Outcome, Received},
    trial,
};

/// Messages of one step: some 20 ms of work.
const STEP_MESSAGES: i64 = 1000;
/// Their bytes, in memory at once.
const STEP_BYTES: i64 = 2 * 1024 * 1024;

/// Which of those that wait.
#[derive(Clone, Debug)]
pub enum Scope {
    All,
    /// Those of a type that was not registered.
    OfType(ActivityTypeCode),
    /// One, and its copies.
    One(Uuid),
}

/// What became of the messages that were tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    pub counted: u64,
    pub duplicates: u64,
    pub still_waiting: u64,
}

impl Replayed {
    pub fn add(&mut self, other: Self) {
        self.counted += other.counted;
        self.duplicates += other.duplicates;
        self.still_waiting += other.still_waiting;
    }
}

/// How they are tried.
#[derive(Clone, Debug)]
pub struct How<'a> {
    pub time_zone: &'a str,
    /// Counts even what may have been counted before its key was purged.
    pub force: bool,
    /// Who wants it, and why: kept with each message that is counted.
    pub actor: &'a str,
    pub why: &'a str,
    /// Rolls each step back and tells what it would have done.
    pub dry_run: bool,
}

/// One pass over the messages of a scope, the oldest first, each once.
#[derive(Debug)]
pub struct Replay<'a> {
    pool: &'a Pool,
    how: How<'a>,
    scope: Scope,
    /// None after the last.
    after: Option<Uuid>,
    /// Still to be tried before more are looked for; the next part last.
    parts: Vec<Vec<Uuid>>,
}

struct Row {
    quarantine_id: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
    value: Option<Vec<u8>>,
    ce_type: Option<Vec<u8>>,
}

/// Where else a message stands.
struct Copy {
    quarantine_id: Uuid,
    topic: String,
    partition: i32,
    last_offset: i64,
    messages: i64,
}

/// What became of a part.
enum Tried {
    Done(Replayed),
    /// Keys were purged meanwhile: it has to be decided anew.
    Again,
    /// The keys are of more days than one transaction may touch.
    TooMuch,
}

/// The one to be tried first stands last.
fn halves(part: &[Uuid]) -> [Vec<Uuid>; 2] {
    let (first, second) = part.split_at(part.len() / 2);
    [second.to_vec(), first.to_vec()]
}

impl<'a> Replay<'a> {
    #[must_use]
    pub fn new(pool: &'a Pool, scope: Scope, how: How<'a>) -> Self {
        Self { pool, how, scope, after: Some(Uuid::nil()), parts: Vec::new() }
    }

    /// The next step; None when the pass is over.
    ///
    /// # Errors
    /// The database's. What earlier steps did stays done.
    pub async fn step(&mut self) -> Result<Option<Replayed>, sqlx::Error> {
        let Some(part) = self.next_part().await? else {
            return Ok(None);
        };
        let error = match self.try_part(&part).await {
            Ok(Tried::Done(done)) => return Ok(Some(done)),
            Ok(Tried::Again) => {
                self.parts.push(part);
                return Ok(Some(Replayed::default()));
            }
            Ok(Tried::TooMuch) => {
                self.parts.extend(halves(&part));
                return Ok(Some(Replayed::default()));
            }
            Err(error) => error,
        };
        match Failure::of(&error) {
            Failure::Conflict => self.parts.push(part),
            Failure::Refused if part.len() > 1 => self.parts.extend(halves(&part)),
            Failure::Refused if self.is_to_blame(&part).await? => {
                return self.not_storable(&part, &error).await.map(Some);
            }
            Failure::Refused | Failure::Outage | Failure::Defect => return Err(error),
        }
        Ok(Some(Replayed::default()))
    }

    async fn next_part(&mut self) -> Result<Option<Vec<Uuid>>, sqlx::Error> {
        let (None, Some(after)) = (self.parts.last(), self.after) else {
            return Ok(self.parts.pop());
        };
        // One query each: only with its condition in the text can a partial index serve it.
        let found: Vec<(Uuid, i64)> = match &self.scope {
            Scope::OfType(code) => sqlx::query!(
                r#"
                SELECT quarantine_id, coalesce(octet_length(value), 0)::bigint AS "bytes!" FROM quarantine
                WHERE state = 'waiting' AND reason = 'unknown type' AND activity_type_code = $1 AND quarantine_id > $2
                ORDER BY quarantine_id LIMIT $3
                "#,
                code.as_str(),
                after,
                STEP_MESSAGES
            )
            .fetch_all(self.pool)
            .await?
            .into_iter()
            .map(|row| (row.quarantine_id, row.bytes))
            .collect(),
            Scope::One(id) => sqlx::query!(
                r#"
                SELECT quarantine_id, coalesce(octet_length(value), 0)::bigint AS "bytes!" FROM quarantine
                WHERE state = 'waiting' AND quarantine_id = $1 AND quarantine_id > $2
                "#,
                id,
                after
            )
            .fetch_all(self.pool)
            .await?
            .into_iter()
            .map(|row| (row.quarantine_id, row.bytes))
            .collect(),
            Scope::All => sqlx::query!(
                r#"
                SELECT quarantine_id, coalesce(octet_length(value), 0)::bigint AS "bytes!" FROM quarantine
                WHERE state = 'waiting' AND quarantine_id > $1
                ORDER BY quarantine_id LIMIT $2
                "#,
                after,
                STEP_MESSAGES
            )
            .fetch_all(self.pool)
            .await?
            .into_iter()
            .map(|row| (row.quarantine_id, row.bytes))
            .collect(),
        };
        // At least one, however large it is.
        let sums = found.iter().scan(0, |sum, (_, bytes)| Some(std::mem::replace(sum, *sum + bytes)));
        let fitting = sums.take_while(|before| *before < STEP_BYTES).count();
        let part: Vec<Uuid> = found.into_iter().take(fitting).map(|(id, _)| id).collect();
        self.after = part.last().copied();
        Ok(self.after.map(|_| part))
    }

    async fn try_part(&self, part: &[Uuid]) -> Result<Tried, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let mut admission = Admission::open(&mut transaction, self.how.time_zone).await?.forced(self.how.force);
        let rows = sqlx::query_as!(
            Row,
            r#"
            SELECT quarantine_id, topic, partition, "offset", value, ce_type FROM quarantine
            WHERE quarantine_id = ANY ($1) AND state = 'waiting'
            -- two passes at once take the rows in one order
            ORDER BY quarantine_id FOR UPDATE
            "#,
            part
        );
        let rows = rows.fetch_all(&mut *transaction).await?;
        // A statement of its own: it sees the copies of whoever held the rows.
        let copies = sqlx::query_as!(
            Copy,
            r#"
            SELECT quarantine_id, topic, partition, last_offset, messages FROM quarantine_copies
            WHERE quarantine_id = ANY ($1) ORDER BY quarantine_id, topic, partition
            "#,
            &rows.iter().map(|row| row.quarantine_id).collect::<Vec<_>>()
        );
        let copies = copies.fetch_all(&mut *transaction).await?;
        let copies_of = |id: Uuid| {
            let first = copies.partition_point(|copy| copy.quarantine_id < id);
            copies[first..].iter().take_while(move |copy| copy.quarantine_id == id)
        };
        let messages_of = |id| 1 + copies_of(id).map(|copy| copy.messages.unsigned_abs()).sum::<u64>();
        let parsed: Vec<_> =
            rows.iter().map(|row| activity::parse(row.value.as_deref(), row.ce_type.as_deref())).collect();
        let days = key::days(parsed.iter().flatten().map(|activity| activity.message_ref));
        if part.len() > 1 && days.len() > key::DAYS_AT_ONCE {
            transaction.rollback().await?;
            return Ok(Tried::TooMuch);
        }
        admission.look_at(&mut transaction, parsed.iter().flatten()).await?;
        let (mut received, mut ids, mut still, mut rows_of) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (row, parsed) in rows.iter().zip(&parsed) {
            match admission.judge(parsed) {
                Ok(activity) => {
                    ids.push(row.quarantine_id);
                    received.push(Received {
                        activity,
                        topic: &row.topic,
                        partition: row.partition,
                        offset: row.offset,
                    });
                    // While one of them can be read the key is needed.
                    received.extend(copies_of(row.quarantine_id).map(|copy| Received {
                        activity,
                        topic: &copy.topic,
                        partition: copy.partition,
                        offset: copy.last_offset,
                    }));
                    rows_of.resize(received.len(), row.quarantine_id);
                }
                Err(rejected) => still.push((row.quarantine_id, rejected)),
            }
        }
        let Outcome { counted, conflicting } =
            statistics::count(&mut transaction, self.how.time_zone, &received, &[]).await?;
        // Of a row and its copies all are.
        let conflicting: BTreeMap<Uuid, &Activity> =
            conflicting.iter().map(|index| (rows_of[*index], received[*index].activity)).collect();
        ids.retain(|id| !conflicting.contains_key(id));
        still.extend(conflicting.iter().map(|(id, activity)| (*id, Cow::Owned(Rejected::conflicting(activity)))));
        let resolved = sqlx::query!(
            r#"
            UPDATE quarantine SET state = 'counted', resolved_at = now(), resolved_by = $2, resolution = $3
            WHERE quarantine_id = ANY ($1)
            "#,
            &ids,
            self.how.actor,
            self.how.why
        );
        let resolved = resolved.execute(&mut *transaction).await?.rows_affected();
        expect_rows("messages counted", ids.len(), resolved)?;
        still_waiting(&mut transaction, &still).await?;
        if !admission.still_holds(&mut transaction).await? {
            transaction.rollback().await?;
            return Ok(Tried::Again);
        }
        let tried = ids.iter().copied().map(messages_of).sum::<u64>();
        let done = Replayed {
            counted,
            duplicates: tried - counted,
            still_waiting: still.iter().map(|(id, _)| messages_of(*id)).sum(),
        };
        if self.how.dry_run {
            transaction.rollback().await?;
        } else {
            fail::fail_point!("quarantine::before_commit", |how| Err(shared::failpoint::kill_or_fail(how)));
            transaction.commit().await?;
            REPLAYED.add_of("counted", done.counted);
            REPLAYED.add_of("duplicate", done.duplicates);
            REPLAYED.add_of("still waiting", done.still_waiting);
        }
        Ok(Tried::Done(done))
    }

    /// Whether a good message would be counted at this moment.
    async fn is_to_blame(&self, part: &[Uuid]) -> Result<bool, sqlx::Error> {
        let suspect = sqlx::query_scalar!("SELECT message_ref FROM quarantine WHERE quarantine_id = ANY ($1)", part);
        let suspect = suspect.fetch_optional(self.pool).await?.flatten();
        Ok(trial::count_a_good_one(self.pool, self.how.time_zone, suspect, &[]).await.is_ok())
    }

    /// A message that Postgres refuses although it is alone.
    async fn not_storable(&self, part: &[Uuid], error: &sqlx::Error) -> Result<Replayed, sqlx::Error> {
        if !self.how.dry_run {
            let rejected = Rejected::by_the_database(error);
            let still: Vec<_> = part.iter().map(|id| (*id, Cow::Borrowed(&rejected))).collect();
            let mut transaction = self.pool.begin().await?;
            still_waiting(&mut transaction, &still).await?;
            transaction.commit().await?;
        }
        Ok(Replayed { still_waiting: part.len() as u64, ..Replayed::default() })
    }
}

/// Notes why messages wait, where that is another reason than before.
async fn still_waiting(
    transaction: &mut sqlx::PgConnection,
    messages: &[(Uuid, Cow<'_, Rejected>)],
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = messages.iter().map(|(id, _)| *id).collect();
    let reasons: Vec<&str> = messages.iter().map(|(_, why)| why.reason.as_str()).collect();
    let details: Vec<&str> = messages.iter().map(|(_, why)| why.detail.as_ref()).collect();
    let codes: Vec<Option<&str>> =
        messages.iter().map(|(_, why)| why.code.as_ref().map(ActivityTypeCode::as_str)).collect();
    let refs: Vec<Option<Uuid>> = messages.iter().map(|(_, why)| why.message_ref).collect();
    sqlx::query!(
        r#"
        UPDATE quarantine q SET reason = n.reason, detail = n.detail,
            activity_type_code = coalesce(n.code, q.activity_type_code),
            message_ref = coalesce(n.message_ref, q.message_ref)
        FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[])
            AS n (id, reason, detail, code, message_ref)
        WHERE q.quarantine_id = n.id AND q.state = 'waiting' AND (q.reason, q.detail) <> (n.reason, n.detail)
        "#,
        &ids,
        &reasons as _,
        &details as _,
        &codes as _,
        &refs as _,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

impl Reason {
    /// What a replay is for when nobody says: by name, for the audit.
    #[must_use]
    pub fn of_replay(force: bool) -> &'static str {
        if force { "replayed with force" } else { "replayed" }
    }
}

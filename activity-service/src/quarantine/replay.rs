//! Messages in quarantine are tried again, by the rules and the statement that count what is read
//! from Kafka: what can be counted now is counted once, and what cannot goes on waiting.
//!
//! Step by step, each a transaction of its own: whoever stops in between has done a part, and doing
//! it all again does the rest.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use shared::{
    contract::message::ActivityTypeCode,
    operators::audit::{Action, Author},
    runtime::database::{Failure, Pool},
};
use sqlx::PgConnection;
use time::Date;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pass, Reason, Rejected, filter::PageEntry};
use crate::{
    activity::{self, Activity, Received},
    admission::{Admission, expect_rows},
    audit, key,
    metrics::{REPLAYED, count_activities},
    statistics::{self, Figures, Outcome},
    trial,
};

/// Messages of one step: some 20 ms of work.
const STEP_MESSAGES: i64 = 1000;
/// Their bytes, in memory at once.
const STEP_BYTES: i64 = 2 * 1024 * 1024;

/// What became of the messages that were tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// How many of them are counted now.
    pub counted: u64,
    /// How many had been counted already.
    pub duplicates: u64,
    /// How many cannot be counted yet.
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
    pub author: &'a Author,
    pub why: &'a str,
    /// Rolls each step back and tells what it would have done.
    pub dry_run: bool,
}

/// One pass over the messages of a filter, the oldest first, each once.
#[derive(Debug)]
pub struct Replay<'a> {
    pool: &'a Pool,
    how: How<'a>,
    pub pass: Pass,
    /// Still to be tried before more are looked for; the next part last.
    parts: Vec<Vec<Uuid>>,
    /// What it has changed, or would have.
    figures: Figures,
    /// How many rows were looked for.
    looked_for: u64,
}

/// By how much a replay changes a figure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FigureChange {
    #[serde(with = "statistics::iso_date")]
    pub activity_date: Date,
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    pub change: u64,
}

impl FigureChange {
    #[must_use]
    pub fn of(figures: &Figures) -> Vec<Self> {
        let changes = figures.iter().map(|((day, code), change)| Self {
            activity_date: *day,
            activity_type_code: code.clone(),
            change: *change,
        });
        changes.collect()
    }
}

struct Row {
    quarantine_id: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
    value: Option<Vec<u8>>,
    ce_type: Option<Vec<u8>>,
    /// Only the hash of its value was kept.
    without_value: bool,
}

/// Where else a message stands.
pub(super) struct Copy {
    quarantine_id: Uuid,
    topic: String,
    partition: i32,
    last_offset: i64,
    messages: i64,
}

impl Copy {
    pub(super) fn received<'a>(&'a self, activity: &'a Activity) -> Received<'a> {
        Received { activity, topic: &self.topic, partition: self.partition, offset: self.last_offset }
    }
}

/// The places of the copies of these messages, whose rows are locked.
pub(super) async fn places(transaction: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Copy>, sqlx::Error> {
    // A statement of its own: it sees the copies of whoever held the rows.
    let copies = sqlx::query_as!(
        Copy,
        r#"
        SELECT quarantine_id, topic, partition, last_offset, messages FROM quarantine_copies
        WHERE quarantine_id = ANY ($1) ORDER BY quarantine_id, topic, partition
        "#,
        ids
    );
    copies.fetch_all(transaction).await
}

/// What became of a part.
enum Tried {
    Done(Replayed, Figures),
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
    pub fn new(pool: &'a Pool, pass: Pass, how: How<'a>) -> Self {
        Self { pool, how, pass, parts: Vec::new(), figures: Figures::new(), looked_for: 0 }
    }

    /// By how much it has changed which figure, or would have.
    #[must_use]
    pub fn figures(&self) -> Vec<FigureChange> {
        FigureChange::of(&self.figures)
    }

    /// How many rows were looked for.
    #[must_use]
    pub fn looked_for(&self) -> u64 {
        self.looked_for
    }

    /// Whether it may stop here for good, after `rows` of them or more: everything that was looked for has been tried.
    #[must_use]
    pub fn may_stop(&self, rows: u64) -> bool {
        self.parts.is_empty() && self.looked_for >= rows
    }

    /// The next step, which looks for at most `limit` messages; None when the pass is over.
    ///
    /// # Errors
    /// The database's. What earlier steps did stays done.
    pub async fn step(&mut self, limit: i64) -> Result<Option<Replayed>, sqlx::Error> {
        let Some(part) = self.next_part(limit).await? else {
            return Ok(None);
        };
        let error = match self.try_part(&part).await {
            Ok(Tried::Done(done, figures)) => {
                statistics::add(&mut self.figures, figures);
                return Ok(Some(done));
            }
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

    async fn next_part(&mut self, limit: i64) -> Result<Option<Vec<Uuid>>, sqlx::Error> {
        if let Some(part) = self.parts.pop() {
            return Ok(Some(part));
        }
        let mut found = self.pass.look(self.pool, limit.min(STEP_MESSAGES)).await?;
        // At least one, however large it is.
        let sums = found.iter().scan(0, |sum, one| Some(std::mem::replace(sum, *sum + one.bytes)));
        found.truncate(sums.take_while(|before| *before < STEP_BYTES).count());
        self.pass.got_to(found.last());
        self.looked_for += found.len() as u64;
        let part: Vec<Uuid> = found.iter().map(|one: &PageEntry| one.id).collect();
        Ok((!part.is_empty()).then_some(part))
    }

    async fn try_part(&self, part: &[Uuid]) -> Result<Tried, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let admission = Admission::open(&mut transaction, self.how.time_zone).await?.forced(self.how.force);
        let rows = sqlx::query_as!(
            Row,
            r#"
            SELECT quarantine_id, topic, partition, "offset", value, ce_type,
                value_sha256 IS NOT NULL AS "without_value!"
            FROM quarantine WHERE quarantine_id = ANY ($1) AND state = 'waiting'
            -- two passes at once take the rows in one order
            ORDER BY quarantine_id FOR UPDATE
            "#,
            part
        );
        let rows = rows.fetch_all(&mut *transaction).await?;
        let (rows, without_value): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| !row.without_value);
        let ids: Vec<Uuid> = rows.iter().chain(&without_value).map(|row| row.quarantine_id).collect();
        let copies = places(&mut transaction, &ids).await?;
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
        let judge = admission.look_at(&mut transaction, parsed.iter().flatten()).await?;
        let (mut received, mut ids, mut still, mut rows_of) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (row, parsed) in rows.iter().zip(&parsed) {
            match judge.judge(parsed) {
                Ok(activity) => {
                    ids.push(row.quarantine_id);
                    received.push(Received {
                        activity,
                        topic: &row.topic,
                        partition: row.partition,
                        offset: row.offset,
                    });
                    // While one of them can be read the key is needed.
                    received.extend(copies_of(row.quarantine_id).map(|copy| copy.received(activity)));
                    rows_of.resize(received.len(), row.quarantine_id);
                }
                Err(rejected) => still.push((row.quarantine_id, rejected)),
            }
        }
        let Outcome { counted, oldest_counted, conflicting } =
            statistics::count(&mut transaction, self.how.time_zone, &received, &[]).await?;
        // Of a row and its copies all are.
        let conflicting: BTreeMap<Uuid, &Activity> =
            conflicting.iter().map(|index| (rows_of[*index], received[*index].activity)).collect();
        ids.retain(|id| !conflicting.contains_key(id));
        still.extend(conflicting.iter().map(|(id, activity)| (*id, Cow::Owned(activity.conflicting()))));
        let resolved = sqlx::query!(
            r#"
            UPDATE quarantine SET state = 'counted', resolved_at = now(), resolved_by = $2, resolution = $3
            WHERE quarantine_id = ANY ($1)
            "#,
            &ids,
            self.how.author.actor,
            self.how.why
        );
        let resolved = resolved.execute(&mut *transaction).await?.rows_affected();
        expect_rows("messages counted", ids.len(), resolved)?;
        let subjects: Vec<String> = ids.iter().map(Uuid::to_string).collect();
        let (action, why) = (Action::QuarantineReplayed, Some(self.how.why));
        audit::record(&mut transaction, self.how.author, action, &subjects, why).await?;
        still_waiting(&mut transaction, &still).await?;
        if !judge.still_holds(&mut transaction, oldest_counted).await? {
            transaction.rollback().await?;
            return Ok(Tried::Again);
        }
        let tried = ids.iter().copied().map(messages_of).sum::<u64>();
        let waiting = still.iter().map(|(id, _)| *id).chain(without_value.iter().map(|row| row.quarantine_id));
        let total = counted.values().sum::<u64>();
        let done =
            Replayed { counted: total, duplicates: tried - total, still_waiting: waiting.map(messages_of).sum() };
        if self.how.dry_run {
            transaction.rollback().await?;
        } else {
            fail::fail_point!("quarantine::before_commit", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
            transaction.commit().await?;
            count_activities(&counted);
            REPLAYED.add_of("counted", done.counted);
            REPLAYED.add_of("duplicate", done.duplicates);
            REPLAYED.add_of("still waiting", done.still_waiting);
        }
        Ok(Tried::Done(done, counted))
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
    transaction: &mut PgConnection,
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
        -- a version of before reads words; reason_code is made of them
        UPDATE quarantine q SET reason = replace(n.reason, '_', ' '), detail = n.detail,
            activity_type_code = coalesce(n.code, q.activity_type_code),
            message_ref = coalesce(n.message_ref, q.message_ref)
        FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[])
            AS n (id, reason, detail, code, message_ref)
        WHERE q.quarantine_id = n.id AND q.state = 'waiting' AND (q.reason_code, q.detail) <> (n.reason, n.detail)
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

//! Keys that nobody needs any more are removed: older than the retention, and of messages that the
//! broker does not have any more, nor a copy of them. What can still be read can still be recognised. Dated
//! ones go with the partition of their day, undated ones row by row.
//! Messages whose quarantine has ended go after a while too: counted ones, because they have a key, and
//! discarded ones that cannot be read again; waiting ones never.
//!
//! One instance at a time: an advisory lock, held by the transaction of each page, makes the others
//! pass by. Nobody waits for a page: counting reads the horizon and looks at the end whether it moved.

use std::time::Duration;

use shared::runtime::{config::Reader, database::Pool, health::TaskStatus, lifecycle::Shutdown};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{consumer::watermarks::Broker, metrics::PURGED, place::Partition};

pub mod days;

/// No page takes longer: the server ends each of its few statements after 10 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
pub struct Settings {
    pub processed_keys: Duration,
    pub quarantine: Duration,
    pub every: Duration,
    pub batch_size: u32,
    pub pause: Duration,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        const A_MOMENT: Duration = Duration::from_millis(1);
        const A_CENTURY: Duration = Duration::from_hours(100 * 365 * 24);
        Self {
            processed_keys: settings.within("retention.processed_keys", ..=A_CENTURY, "at most 36500d"),
            quarantine: settings.within("retention.quarantine", ..=A_CENTURY, "at most 36500d"),
            every: settings.within("retention.every", A_MOMENT.., "1ms or longer"),
            batch_size: settings.within("retention.batch_size", 1..=100_000, "from 1 to 100000"),
            pause: settings.get("retention.pause"),
        }
    }
}

#[derive(Debug)]
pub struct Retention {
    pub pool: Pool,
    pub broker: Broker,
    pub settings: Settings,
}

/// How many rows went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub keys: u64,
    pub quarantine: u64,
}

/// Where a partition's messages begin that can still be read.
#[derive(Debug, Default)]
struct Lows {
    topics: Vec<String>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
}

impl Lows {
    fn of(&self, partition: &Partition) -> Option<i64> {
        let mut all = self.topics.iter().zip(&self.partitions).zip(&self.offsets);
        let found = all.find(|((topic, number), _)| **topic == partition.topic && **number == partition.number);
        found.map(|(_, low)| *low)
    }
}

/// The last row that was looked at: what stays, and what is gone and still there for whoever keeps a snapshot, is not read
/// again for each page.
#[derive(Clone, Copy, Debug)]
struct PageEnd {
    at: OffsetDateTime,
    id: Uuid,
}

impl PageEnd {
    const BEGIN: Self = Self { at: OffsetDateTime::UNIX_EPOCH, id: Uuid::nil() };
}

impl Retention {
    /// Purges now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        loop {
            match self.purge(&shutdown, &status).await {
                Ok(purged) => {
                    status.ok();
                    if purged != Purged::default() {
                        tracing::info!(purged.keys, purged.quarantine, "purged what is past its retention");
                    }
                }
                Err(error) => status.failing(format_args!("{error:#}"), "cannot purge; trying again later"),
            }
            if shutdown.unless_draining(tokio::time::sleep(self.settings.every)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes what is due, page by page. What fails keeps nothing else from its turn.
    ///
    /// # Errors
    /// The database's; or the broker does not tell which messages can still be read.
    pub async fn purge(&self, shutdown: &Shutdown, status: &TaskStatus) -> anyhow::Result<Purged> {
        let made = days::make_ahead(&self.pool, status).await;
        let purged = self.purge_all(shutdown, status).await;
        made?;
        purged
    }

    async fn purge_all(&self, shutdown: &Shutdown, status: &TaskStatus) -> anyhow::Result<Purged> {
        let settled = self.ago(self.settings.quarantine).await?;
        let processed = self.ago(self.settings.processed_keys).await?;
        let past_days = self.past_days(processed).await?;
        let nothing_past = past_days.is_empty();
        let lows = shutdown.unless_draining(self.lows(settled, processed, nothing_past)).await.transpose()?;
        let Some(Some(lows)) = lows else {
            return Ok(Purged::default());
        };
        let quarantine = self.purge_all_of_quarantine(settled, &lows, shutdown, status).await;
        let keys = self.purge_all_undated(processed, &lows, shutdown, status).await;
        let of_days = self.purge_days(past_days, processed, &lows, shutdown, status).await;
        Ok(Purged { quarantine: quarantine?, keys: keys? + of_days? })
    }

    async fn purge_all_of_quarantine(
        &self,
        settled: OffsetDateTime,
        lows: &Lows,
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> Result<u64, sqlx::Error> {
        let (mut after, mut purged) = (PageEnd::BEGIN, 0);
        while !shutdown.is_draining() {
            let (last, rows) = status.busy(ANSWER_WITHIN, self.purge_quarantine(settled, after, lows)).await?;
            purged += rows;
            let Some(last) = last else { break };
            after = last;
            self.leave_the_disk_to_others(shutdown).await;
        }
        Ok(purged)
    }

    async fn purge_all_undated(
        &self,
        processed: OffsetDateTime,
        lows: &Lows,
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> Result<u64, sqlx::Error> {
        let (mut after, mut purged) = (PageEnd::BEGIN, 0);
        while !shutdown.is_draining() {
            let (last, keys) = status.busy(ANSWER_WITHIN, self.purge_keys(processed, after, lows)).await?;
            purged += keys;
            let Some(last) = last else { break };
            after = last;
            self.leave_the_disk_to_others(shutdown).await;
        }
        Ok(purged)
    }

    /// By the clock that the rows were written by.
    async fn ago(&self, age: Duration) -> Result<OffsetDateTime, sqlx::Error> {
        let then = sqlx::query_scalar!(r#"SELECT now() - make_interval(secs => $1) AS "then!""#, age.as_secs_f64());
        then.fetch_one(&self.pool).await
    }

    async fn leave_the_disk_to_others(&self, shutdown: &Shutdown) {
        shutdown.unless_draining(tokio::time::sleep(self.settings.pause)).await;
    }

    /// The low watermarks of every partition of which something was read. None where nothing is old
    /// enough, so that nobody is asked.
    async fn lows(
        &self,
        settled: OffsetDateTime,
        processed: OffsetDateTime,
        no_past_days: bool,
    ) -> anyhow::Result<Option<Lows>> {
        let any = sqlx::query_scalar!(
            r#"
            -- The oldest, by an index: whether any is older would be looked for among all that are not.
            SELECT coalesce((SELECT min(resolved_at) FROM quarantine WHERE state <> 'waiting') < $1, false)
                OR coalesce((SELECT min(processed_at) FROM processed_messages_undated) < $2, false) AS "any!"
            "#,
            settled,
            processed
        );
        if !any.fetch_one(&self.pool).await? && no_past_days {
            return Ok(None);
        }
        let mut lows = Lows::default();
        let read = sqlx::query!("SELECT topic, partition FROM consumer_positions ORDER BY topic, partition");
        let read = read.fetch_all(&self.pool).await?;
        let partitions = read.into_iter().map(|row| Partition::new(row.topic, row.partition)).collect();
        for (Partition { topic, number }, marks) in self.broker.watermarks(partitions).await? {
            lows.topics.push(topic);
            lows.partitions.push(number);
            lows.offsets.push(marks.low);
        }
        Ok(Some(lows))
    }

    /// Looks at a page of old undated keys and removes those that may go. None where there are no more, or
    /// another instance is at it.
    async fn purge_keys(
        &self,
        before: OffsetDateTime,
        after: PageEnd,
        lows: &Lows,
    ) -> Result<(Option<PageEnd>, u64), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if !is_mine(&mut transaction).await? {
            return Ok((None, 0));
        }
        let page = sqlx::query!(
            r#"
            WITH page AS (
                SELECT message_ref, processed_at, topic, partition, "offset" FROM processed_messages_undated
                WHERE processed_at < $1 AND (processed_at, message_ref) > ($2, $3)
                ORDER BY processed_at, message_ref LIMIT $4
            ), low AS (
                SELECT * FROM UNNEST($5::text[], $6::int[], $7::bigint[]) AS low (topic, partition, "offset")
            ), purged AS (
                DELETE FROM processed_messages_undated WHERE message_ref IN (
                    SELECT message_ref FROM page JOIN low USING (topic, partition)
                    WHERE page."offset" < low."offset" AND NOT EXISTS (
                        -- of what the broker does not tell, nobody knows whether it can be read
                        SELECT FROM message_copies AS copy LEFT JOIN low USING (topic, partition)
                        WHERE copy.message_ref = page.message_ref AND (copy."offset" < low."offset") IS NOT TRUE
                        -- asked for each key: all copies are many
                        OFFSET 0
                    )
                )
                RETURNING message_ref, activity_at
            ), copies AS (
                DELETE FROM message_copies WHERE message_ref = ANY (ARRAY(SELECT message_ref FROM purged))
            ), horizon AS (
                UPDATE key_horizon SET purges = purges + 1,
                    newest_purged = GREATEST(newest_purged, (SELECT max(activity_at) FROM purged))
                WHERE EXISTS (SELECT FROM purged)
            )
            SELECT processed_at, message_ref, (SELECT count(*) FROM purged) AS "keys!"
            FROM page ORDER BY processed_at DESC, message_ref DESC LIMIT 1
            "#,
            before,
            after.at,
            after.id,
            i64::from(self.settings.batch_size),
            &lows.topics,
            &lows.partitions,
            &lows.offsets,
        );
        let page = page.fetch_optional(&mut *transaction).await?;
        fail::fail_point!("retention::before_commit", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        transaction.commit().await?;
        let Some(page) = page else {
            return Ok((None, 0));
        };
        PURGED.add_of("keys", page.keys.unsigned_abs());
        let last = PageEnd { at: page.processed_at, id: page.message_ref };
        Ok((Some(last), page.keys.unsigned_abs()))
    }

    /// Looks at a page of what is settled and removes those that may go. None where there are no more, or another
    /// instance is at it.
    async fn purge_quarantine(
        &self,
        before: OffsetDateTime,
        after: PageEnd,
        lows: &Lows,
    ) -> Result<(Option<PageEnd>, u64), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if !is_mine(&mut transaction).await? {
            return Ok((None, 0));
        }
        let page = sqlx::query!(
            r#"
            WITH low AS (
                SELECT * FROM UNNEST($3::text[], $4::int[], $5::bigint[]) AS low (topic, partition, "offset")
            ), page AS (
                SELECT quarantine_id, resolved_at FROM quarantine
                WHERE state <> 'waiting' AND resolved_at < $1 AND (resolved_at, quarantine_id) > ($6, $7)
                ORDER BY resolved_at, quarantine_id LIMIT $2
            ), due AS (
                SELECT quarantine_id FROM quarantine
                WHERE quarantine_id = ANY (ARRAY(SELECT quarantine_id FROM page)) AND state <> 'waiting' AND (
                    -- what was corrected has no key that keeps it from coming back as it came
                    state = 'counted' AND corrected_value IS NULL OR EXISTS (
                    SELECT FROM low WHERE (low.topic, low.partition) = (quarantine.topic, quarantine.partition)
                        AND quarantine."offset" < low."offset"
                ) AND NOT EXISTS (
                    -- of what the broker does not tell, nobody knows whether it can be read
                    SELECT FROM quarantine_copies AS copy LEFT JOIN low USING (topic, partition)
                    WHERE copy.quarantine_id = quarantine.quarantine_id
                        AND (copy.last_offset < low."offset") IS NOT TRUE
                    -- asked for each message: all copies are many
                    OFFSET 0
                ))
                FOR UPDATE SKIP LOCKED
            ), copies AS (
                DELETE FROM quarantine_copies WHERE quarantine_id = ANY (ARRAY(SELECT quarantine_id FROM due))
            ), purged AS (
                DELETE FROM quarantine WHERE quarantine_id = ANY (ARRAY(SELECT quarantine_id FROM due))
                RETURNING quarantine_id
            )
            SELECT resolved_at AS "resolved_at!", quarantine_id, (SELECT count(*) FROM purged) AS "rows!"
            FROM page ORDER BY resolved_at DESC, quarantine_id DESC LIMIT 1
            "#,
            before,
            i64::from(self.settings.batch_size),
            &lows.topics,
            &lows.partitions,
            &lows.offsets,
            after.at,
            after.id,
        );
        let page = page.fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        let Some(page) = page else {
            return Ok((None, 0));
        };
        PURGED.add_of("quarantine", page.rows.unsigned_abs());
        Ok((Some(PageEnd { at: page.resolved_at, id: page.quarantine_id }), page.rows.unsigned_abs()))
    }
}

async fn is_mine(transaction: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Of this schema: another installation in this database has its own.
    let mine = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock('processed_messages'::regclass::oid::bigint) AS "locked!""#
    );
    mine.fetch_one(transaction).await
}

//! The log of an identity that has ended, sent by the one identity that has adopted it.
//!
//! A log is *closed* when no transaction of before the end is under way any more, so that nothing more is
//! committed to it. Snapshots do not tell: a transaction that waits at its ON CONFLICT has none, and one whose
//! COMMIT waits for a standby outlives every time-out. Locks do, as for CREATE INDEX CONCURRENTLY: whoever
//! locks the table after the end was visible takes its snapshot later still, and the fence shows it the end.
//!
//! Usually that takes milliseconds, and the log is read once, closed. Where it takes longer the log is read at
//! once, and when it is closed once more, without what was seen.

use shared::runtime::database::Pool;
use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Log, places::Places};
use crate::{
    instance_id::InstanceId,
    message::Message,
    tables::{self, Answered},
};

/// How long the first reading waits for the log to be closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// A log that this process's identity has adopted, and how far it has come with it.
#[derive(Debug)]
pub struct Adopted {
    pub log: Arc<Log>,
    since: Instant,
    closing: Closing,
    reading: Reading,
    /// A transaction has ended since the early reading began, and may have committed behind it.
    is_out_of_date: bool,
    /// The next place to be read.
    cursor: i64,
    /// The places whose messages were taken into memory, or are settled.
    seen: Places,
    last_seen: i64,
}

#[derive(Debug)]
enum Closing {
    /// Nobody has looked yet.
    Unknown,
    /// Transactions that were under way when the end was visible.
    WaitsFor(Vec<String>),
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// It began before the log was closed: there will be one more.
    Early,
    /// The early one has come to its end.
    WaitsToBeClosed,
    /// Everything there will ever be is there.
    Last,
    /// Everything was taken into memory.
    Over,
}

/// Makes `adopter` send the logs that nobody living sends, at most `limit`. Said again it is the same: a lost
/// answer leaves nothing in doubt.
///
/// # Errors
/// The database's.
pub async fn adopt(pool: &Pool, adopter: InstanceId, limit: i64) -> Result<Vec<InstanceId>, sqlx::Error> {
    let adopted = sqlx::query_scalar!(
        r#"
        UPDATE instances SET adopter = $1
        WHERE instance_id = ANY (ARRAY(
            SELECT log.instance_id FROM (
                SELECT instance_id, adopter FROM instances i
                WHERE ended_at IS NOT NULL AND done_at IS NULL AND NOT EXISTS (
                    SELECT FROM instances a WHERE a.instance_id = i.adopter AND a.ended_at IS NULL AND a.instance_id <> $1)
                    AND adopter IS DISTINCT FROM $1
                ORDER BY instance_id LIMIT $2
            ) AS seen JOIN instances log USING (instance_id)
            -- Of a row that has changed since, this alone is asked again: NOT EXISTS is not.
            WHERE log.adopter IS NOT DISTINCT FROM seen.adopter
            FOR UPDATE OF log SKIP LOCKED
        ))
            -- One that has ended itself is about to find out.
            AND EXISTS (SELECT FROM instances WHERE instance_id = $1 AND ended_at IS NULL)
        RETURNING instance_id
        "#,
        adopter.number(),
        limit
    );
    let adopted = adopted.fetch_all(pool).await?;
    Ok(adopted.into_iter().map(InstanceId::from).collect())
}

/// The logs that `adopter` sends.
///
/// # Errors
/// The database's.
pub async fn adopted_by(pool: &Pool, adopter: InstanceId) -> Result<Vec<Adopted>, sqlx::Error> {
    let logs = sqlx::query!(
        r#"
        SELECT instance_id, closed_at IS NOT NULL AS "is_closed!", settled_to(instance_id) AS "settled_to!",
            (SELECT max(block) FROM published p WHERE p.instance = instance_id) AS block
        FROM instances WHERE adopter = $1 AND done_at IS NULL
        "#,
        adopter.number()
    );
    let adopted = logs.fetch_all(pool).await?.into_iter().map(|row| {
        let highest = row.block.map_or(-1, |block| (block + 1) * tables::BLOCK - 1);
        let log = Arc::new(Log::new(row.instance_id.into(), row.settled_to, highest));
        let closing = if row.is_closed { Closing::Closed } else { Closing::Unknown };
        Adopted {
            log,
            since: Instant::now(),
            closing,
            reading: if row.is_closed { Reading::Last } else { Reading::Early },
            is_out_of_date: false,
            cursor: row.settled_to + 1,
            seen: Places::default(),
            last_seen: row.settled_to,
        }
    });
    Ok(adopted.collect())
}

impl Adopted {
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.closing, Closing::Closed)
    }

    /// Looks whether the log is closed, by the [`writers`] of now.
    ///
    /// # Errors
    /// The database's.
    pub async fn close(&mut self, pool: &Pool, now: &[String]) -> Result<(), sqlx::Error> {
        let waits_for = match &self.closing {
            Closing::Closed => return Ok(()),
            Closing::Unknown => now.to_vec(),
            Closing::WaitsFor(before) => {
                // One that was prepared meanwhile, or outlived a restart of the server so, has another name by now.
                let may_be = |writer: &&String| before.contains(*writer) || writer.starts_with("-1/");
                let left: Vec<_> = now.iter().filter(may_be).cloned().collect();
                // What one of them has committed does not wait for the others.
                self.is_out_of_date |= left.len() < before.len();
                if self.reading == Reading::WaitsToBeClosed {
                    self.end_reading();
                }
                left
            }
        };
        if !waits_for.is_empty() {
            self.closing = Closing::WaitsFor(waits_for);
            return Ok(());
        }
        // Somebody may have locked its row: others do not wait behind it.
        let closing = sqlx::query_scalar!(
            r#"
            WITH mine AS (
                SELECT instance_id FROM instances WHERE instance_id = $1 FOR UPDATE SKIP LOCKED
            ), closed AS (
                UPDATE instances i SET closed_at = now() FROM mine WHERE i.instance_id = mine.instance_id AND closed_at IS NULL
            )
            SELECT count(*) AS "mine!" FROM mine
            "#,
            self.log.id.number()
        );
        if closing.fetch_one(pool).await? == 0 {
            self.closing = Closing::WaitsFor(Vec::new());
            return Ok(());
        }
        self.closing = Closing::Closed;
        // Nothing was read yet, or everything that was there.
        if self.cursor == self.log.settled_to() + 1 || self.reading == Reading::WaitsToBeClosed {
            self.begin_last();
        }
        Ok(())
    }

    /// Whether a page is to be read now: an early reading gives the log a moment to be closed.
    #[must_use]
    pub fn is_to_be_read(&self) -> bool {
        match self.reading {
            Reading::Early => self.since.elapsed() >= CLOSE_WITHIN,
            Reading::Last => true,
            Reading::WaitsToBeClosed | Reading::Over => false,
        }
    }

    /// Whether pages of it are left to be read. Once they are not, it may wait for as long as somebody's transaction, a
    /// partition of the topic or a back-off lasts.
    #[must_use]
    pub fn is_being_read(&self) -> bool {
        matches!(self.reading, Reading::Early | Reading::Last)
    }

    /// Whether it is to be looked at again very soon.
    #[must_use]
    pub fn is_about_to_close(&self) -> bool {
        !self.is_closed() && self.since.elapsed() < CLOSE_WITHIN
    }

    /// Reads a page, and gives those of its messages that are to be sent.
    ///
    /// # Errors
    /// The database's. The same page is read the next time.
    pub async fn read_page(&mut self, pool: &Pool, max: usize) -> Result<Vec<Message>, sqlx::Error> {
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let page = tables::read_range(pool, self.log.id, self.cursor, i64::MAX, limit).await?;
        let is_last = page.len() < max;
        let (Some(first), Some(last)) = (page.first().map(|one| one.seq), page.last().map(|one| one.seq)) else {
            self.end_reading();
            return Ok(Vec::new());
        };
        let answered = tables::answered(pool, self.log.id, first, last).await?;
        let answered: std::collections::HashMap<_, _> = answered.into_iter().collect();
        let mut messages = Vec::new();
        for mut message in page {
            // Between two rows of a closed log nothing will ever be.
            if self.reading == Reading::Last {
                self.log.settle_range(self.cursor, message.seq - 1);
            }
            self.cursor = message.seq + 1;
            if self.seen.contains(message.seq) {
                continue;
            }
            self.seen.insert(message.seq, message.seq);
            self.last_seen = self.last_seen.max(message.seq);
            match answered.get(&message.seq) {
                Some(Answered::Settled) => self.log.settle([message.seq]),
                Some(Answered::Refused(failures)) => {
                    message.failures = *failures;
                    messages.push(message);
                }
                None => messages.push(message),
            }
        }
        if is_last {
            self.end_reading();
        }
        Ok(messages)
    }

    fn end_reading(&mut self) {
        match (&self.closing, self.reading) {
            (_, Reading::Last | Reading::Over) => self.reading = Reading::Over,
            (Closing::Closed, Reading::Early | Reading::WaitsToBeClosed) => self.begin_last(),
            (Closing::Unknown | Closing::WaitsFor(_), _) if std::mem::take(&mut self.is_out_of_date) => {
                self.reading = Reading::Early;
                self.cursor = self.log.settled_to() + 1;
            }
            (Closing::Unknown | Closing::WaitsFor(_), _) => self.reading = Reading::WaitsToBeClosed,
        }
    }

    fn begin_last(&mut self) {
        self.reading = Reading::Last;
        self.cursor = self.log.settled_to() + 1;
    }

    /// Forgets the log, if nothing is left in it to be sent. Whether it was.
    ///
    /// # Errors
    /// The database's.
    pub async fn finish(&self, pool: &Pool, adopter: InstanceId) -> Result<bool, sqlx::Error> {
        // Once it is done nobody looks for what was sent and has no mark.
        if self.reading != Reading::Over || !self.log.is_settled_for_good(self.last_seen) {
            return Ok(false);
        }
        let is_done = sqlx::query_scalar!(
            r#"
            WITH open AS MATERIALIZED (
                SELECT instance_id FROM instances WHERE instance_id = $1 AND adopter = $2 AND done_at IS NULL
            ), mine AS (
                SELECT i.instance_id FROM instances i JOIN open USING (instance_id) FOR UPDATE OF i SKIP LOCKED
            ), done AS (
                UPDATE instances i SET done_at = now() FROM mine
                WHERE i.instance_id = mine.instance_id AND adopter = $2 AND done_at IS NULL
            )
            SELECT NOT EXISTS (SELECT FROM open) OR EXISTS (SELECT FROM mine) AS "is_done!"
            "#,
            self.log.id.number(),
            adopter.number()
        );
        is_done.fetch_one(pool).await
    }
}

/// The transactions that may still commit a message whose fence they have passed. Asked when the ends of the logs
/// are visible that are to be closed by it.
///
/// # Errors
/// The database's.
pub async fn writers(pool: &Pool) -> Result<Vec<String>, sqlx::Error> {
    let writers = sqlx::query_scalar!(
        r#"
        SELECT DISTINCT virtualtransaction AS "writer!" FROM pg_locks
        WHERE locktype = 'relation' AND granted AND relation = 'outbox'::regclass
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND mode NOT IN ('AccessShareLock', 'RowShareLock')
        "#
    );
    writers.fetch_all(pool).await
}

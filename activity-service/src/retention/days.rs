//! The partitions of days: made ahead, and dropped whole when they are past.
//!
//! A partition goes when each of its keys is older than the retention and neither its message nor a copy
//! can be read. Both are known from one reading of it, which is remembered: it is not read again before what
//! kept it has passed. First it is emptied, which locks nobody else's partition and gives the room back; the
//! empty one is dropped when the whole table is to be had for a moment. Nobody waits behind either for
//! longer than 20 ms, and what did not come off is tried again at the next purge.

use std::collections::BTreeMap;

use shared::runtime::{
    database::{Pool, Transaction},
    health::TaskStatus,
    lifecycle::Shutdown,
};
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{ANSWER_WITHIN, Lows, Retention, is_mine};
use crate::{
    admission, key,
    metrics::{PARTITIONS_AHEAD, PURGED},
    place::Partition,
};

/// Partitions are made for so many days after today: long enough to notice that no more come.
pub const AHEAD: i32 = 7;

/// As often a purge tries to drop an empty partition. Under load the moment that it needs is rare.
const TRIES: usize = 10;

/// Pages of a partition that are read in one step: some 400 MB, about a second.
const STEP: i64 = 50_000;

/// What was found in a partition.
#[derive(Debug, Default)]
struct PartitionContent {
    keys: u64,
    newest_activity: Option<OffsetDateTime>,
    /// Of each partition of a topic the last offset, copies included, and when its last key was written.
    ends: BTreeMap<Partition, (i64, OffsetDateTime)>,
}

/// Of one partition of a topic, in a part of it.
struct End {
    topic: String,
    partition: i32,
    offset: i64,
    at: OffsetDateTime,
    newest_activity: Option<OffsetDateTime>,
    keys: i64,
}

/// Makes the partitions that are missing from today on.
///
/// # Errors
/// As Postgres answers.
pub async fn make_ahead(pool: &Pool, status: &TaskStatus) -> Result<(), sqlx::Error> {
    let days = sqlx::query_scalar!(
        r#"SELECT (now() AT TIME ZONE 'UTC')::date + ahead AS "day!" FROM generate_series(0, $1::int) AS ahead"#,
        AHEAD
    );
    for day in days.fetch_all(pool).await? {
        // One at a time: counting may need one of them right now.
        let making = async {
            let mut transaction = pool.begin().await?;
            key::make_partitions(&mut transaction, &[day].into()).await?;
            transaction.commit().await
        };
        status.busy(ANSWER_WITHIN, making).await?;
    }
    Ok(())
}

/// For how many days after today there are partitions, up to [`AHEAD`].
///
/// # Errors
/// As Postgres answers.
pub async fn gauge_partitions_ahead(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let ahead = sqlx::query_scalar!(
        r#"
        SELECT coalesce(min(ahead) - 1, $1) AS "ahead!" FROM generate_series(1, $1::int) AS ahead
        WHERE NOT EXISTS (SELECT FROM key_days WHERE day = (now() AT TIME ZONE 'UTC')::date + ahead)
        "#,
        AHEAD
    );
    PARTITIONS_AHEAD.set(f64::from(ahead.fetch_one(connection).await?));
    Ok(())
}

impl Retention {
    /// Days that may be due: past, and not known to have a key that is too young. Today's partition and
    /// those made ahead are needed; beyond them may be what a wrong clock has left.
    pub(super) async fn past_days(&self, before: OffsetDateTime) -> Result<Vec<Date>, sqlx::Error> {
        let days = sqlx::query_scalar!(
            r#"
            SELECT day AS "day!" FROM key_days
            WHERE (day < ($1::timestamptz AT TIME ZONE 'UTC')::date AND day < (now() AT TIME ZONE 'UTC')::date
                    OR day > (now() AT TIME ZONE 'UTC')::date + $2::int)
                AND NOT EXISTS (
                    SELECT FROM key_day_ends WHERE key_day_ends.day = key_days.day AND last_processed_at >= $1
                )
            ORDER BY day
            "#,
            before,
            AHEAD + 1
        );
        days.fetch_all(&self.pool).await
    }

    /// Drops the partitions of the days among `days` that are due; how many keys went.
    pub(super) async fn purge_days(
        &self,
        days: Vec<Date>,
        before: OffsetDateTime,
        lows: &Lows,
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> Result<u64, sqlx::Error> {
        let mut purged = 0;
        for day in days {
            if shutdown.is_draining() || !self.may_be_past(day, lows).await? {
                continue;
            }
            self.purge_copies(day, lows, shutdown, status).await?;
            let Some(keys) = self.empty(day, before, lows, status).await? else { continue };
            PURGED.add_of("keys", keys);
            purged += keys;
            for _ in 0..TRIES {
                if shutdown.is_draining() || status.busy(ANSWER_WITHIN, self.drop_empty(day)).await? {
                    break;
                }
                self.leave_the_disk_to_others(shutdown).await;
            }
        }
        Ok(purged)
    }

    /// False where it is remembered that something in it can still be read.
    async fn may_be_past(&self, day: Date, lows: &Lows) -> Result<bool, sqlx::Error> {
        let may_be = sqlx::query_scalar!(
            r#"
            SELECT NOT EXISTS (
                SELECT FROM key_day_ends AS known
                LEFT JOIN UNNEST($2::text[], $3::int[], $4::bigint[]) AS low (topic, partition, "offset")
                    USING (topic, partition)
                -- of what the broker does not tell, nobody knows whether it can be read
                WHERE day = $1 AND (known.last_offset < low."offset") IS NOT TRUE
            ) AS "may_be!"
            "#,
            day,
            &lows.topics,
            &lows.partitions,
            &lows.offsets,
        );
        may_be.fetch_one(&self.pool).await
    }

    /// Removes, page by page, the copies of a day's messages that cannot be read any more. Without them the
    /// keys are not kept for less.
    async fn purge_copies(
        &self,
        day: Date,
        lows: &Lows,
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> Result<(), sqlx::Error> {
        let (mut after, end) = ((key::begin(day), String::new(), -1), end(day));
        while !shutdown.is_draining() {
            let next = status.busy(ANSWER_WITHIN, self.purge_page_of_copies(&after, end, lows)).await?;
            let Some(next) = next else { break };
            after = next;
            self.leave_the_disk_to_others(shutdown).await;
        }
        Ok(())
    }

    /// Where the page ends; none behind the last, and where another instance is at it.
    async fn purge_page_of_copies(
        &self,
        after: &(Uuid, String, i32),
        end: Uuid,
        lows: &Lows,
    ) -> Result<Option<(Uuid, String, i32)>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if !is_mine(&mut transaction).await? {
            return Ok(None);
        }
        let last = sqlx::query!(
            r#"
                WITH page AS (
                    SELECT message_ref, topic, partition, "offset" FROM message_copies
                    WHERE (message_ref, topic, partition) > ($1, $2, $3) AND message_ref < $4
                    ORDER BY message_ref, topic, partition LIMIT $5
                ), gone AS (
                    DELETE FROM message_copies AS copy
                    USING page JOIN UNNEST($6::text[], $7::int[], $8::bigint[]) AS low (topic, partition, "offset")
                        USING (topic, partition)
                    WHERE (copy.message_ref, copy.topic, copy.partition) = (page.message_ref, page.topic, page.partition)
                        AND NOT key_is_undated(copy.message_ref) AND copy."offset" < low."offset"
                )
                SELECT message_ref, topic, partition FROM page
                ORDER BY message_ref DESC, topic DESC, partition DESC LIMIT 1
                "#,
            after.0,
            after.1,
            after.2,
            end,
            i64::from(self.settings.batch_size),
            &lows.topics,
            &lows.partitions,
            &lows.offsets,
        );
        let last = last.fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(last.map(|last| (last.message_ref, last.topic, last.partition)))
    }

    /// Empties a partition that may go, and answers with how many keys it had. Of one that may not it is
    /// remembered why. None there, and where somebody is in it or another instance is at it.
    async fn empty(
        &self,
        day: Date,
        before: OffsetDateTime,
        lows: &Lows,
        status: &TaskStatus,
    ) -> Result<Option<u64>, sqlx::Error> {
        let locking = status.busy(ANSWER_WITHIN, self.locked(day));
        let Some(mut transaction) = locking.await? else { return Ok(None) };
        let found = PartitionContent::read(&mut transaction, day, status).await?;
        let is_due =
            found.ends.iter().all(|(of, (last, at))| *at < before && lows.of(of).is_some_and(|low| *last < low));
        status.busy(ANSWER_WITHIN, found.settle(transaction, day, is_due)).await?;
        Ok(is_due.then_some(found.keys))
    }

    /// A transaction that has locked the partition. None as for [`Self::empty`].
    async fn locked(&self, day: Date) -> Result<Option<Transaction>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if !is_mine(&mut transaction).await? {
            return Ok(None);
        }
        // Locked before it is read, so that no key comes after it was seen that none is left to be read.
        // Who counts a message of a day so long ago waits for this; nobody else does.
        let locked = sqlx::query_scalar!(r#"SELECT lock_key_partition($1) AS "locked!""#, day);
        let locked = locked.fetch_one(&mut *transaction).await?;
        Ok(locked.then_some(transaction))
    }

    /// False where it is not to be had for now, or a key has come meanwhile. Nothing is left to do where
    /// another instance is at it.
    async fn drop_empty(&self, day: Date) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if !is_mine(&mut transaction).await? {
            return Ok(true);
        }
        // Nobody is left who has seen that it is there and will count on it.
        let closed = admission::close(&mut transaction, "20ms").await;
        if closed.as_ref().is_err_and(is_lock_timeout) {
            return Ok(false);
        }
        closed?;
        let dropped = sqlx::query_scalar!(r#"SELECT drop_key_partition($1) AS "dropped!""#, day);
        let dropped = dropped.fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(dropped)
    }
}

impl PartitionContent {
    async fn read(transaction: &mut PgConnection, day: Date, status: &TaskStatus) -> Result<Self, sqlx::Error> {
        let mut found = Self::default();
        let (begin, end) = (key::begin(day), end(day));
        let pages = sqlx::query_scalar!(
            r#"
            SELECT pg_relation_size(to_regclass('processed_messages_' || to_char($1::date, 'YYYYMMDD')))
                / current_setting('block_size')::bigint AS "pages!"
            "#,
            day
        );
        let asking = async {
            key::plan_with_values(&mut *transaction).await?;
            pages.fetch_one(&mut *transaction).await
        };
        let pages = status.busy(ANSWER_WITHIN, asking).await?;
        // From its first page to its last: by the index each page would be read once for every key in it.
        let mut from = 0;
        while from < pages {
            let keys = sqlx::query_as!(
                End,
                r#"
                SELECT topic AS "topic!", partition AS "partition!", max("offset") AS "offset!",
                    max(processed_at) AS "at!", max(activity_at) AS newest_activity, count(*) AS "keys!"
                FROM processed_messages
                WHERE NOT undated AND message_ref >= $1 AND message_ref < $2
                    AND ctid >= $3::text::tid AND ctid < $4::text::tid
                GROUP BY topic, partition
                "#,
                begin,
                end,
                format!("({from},0)"),
                format!("({},0)", from + STEP)
            );
            found.add(status.busy(ANSWER_WITHIN, keys.fetch_all(&mut *transaction)).await?);
            from += STEP;
        }
        let copies = sqlx::query_as!(
            End,
            r#"
            SELECT topic AS "topic!", partition AS "partition!", max("offset") AS "offset!",
                timestamptz 'epoch' AS "at!", NULL::timestamptz AS newest_activity, 0::bigint AS "keys!"
            FROM message_copies
            WHERE message_ref >= $1 AND message_ref < $2 AND NOT key_is_undated(message_ref)
            GROUP BY topic, partition
            "#,
            begin,
            end
        );
        found.add(status.busy(ANSWER_WITHIN, copies.fetch_all(&mut *transaction)).await?);
        Ok(found)
    }

    fn add(&mut self, ends: Vec<End>) {
        for row in ends {
            self.keys += row.keys.unsigned_abs();
            self.newest_activity = self.newest_activity.into_iter().chain(row.newest_activity).max();
            let end = self.ends.entry(Partition::new(row.topic, row.partition)).or_insert((row.offset, row.at));
            *end = (end.0.max(row.offset), end.1.max(row.at));
        }
    }

    /// Empties the partition, or remembers why it may not go.
    async fn settle(&self, mut transaction: Transaction, day: Date, is_due: bool) -> Result<(), sqlx::Error> {
        sqlx::query!("DELETE FROM key_day_ends WHERE day = $1", day).execute(&mut *transaction).await?;
        if !is_due {
            self.remember(&mut transaction, day).await?;
        } else if let Some(newest) = self.newest_activity {
            let horizon = sqlx::query!(
                "UPDATE key_horizon SET purges = purges + 1, newest_purged = GREATEST(newest_purged, $1)",
                newest
            );
            let rows = horizon.execute(&mut *transaction).await?.rows_affected();
            admission::expect_rows("horizons", 1, rows)?;
            sqlx::query!("SELECT empty_key_partition($1) AS emptied", day).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    async fn remember(&self, transaction: &mut PgConnection, day: Date) -> Result<(), sqlx::Error> {
        let (topics, partitions) = Partition::columns(self.ends.keys());
        let offsets: Vec<i64> = self.ends.values().map(|(offset, _)| *offset).collect();
        let times: Vec<OffsetDateTime> = self.ends.values().map(|(_, at)| *at).collect();
        let remembered = sqlx::query!(
            r#"
            INSERT INTO key_day_ends (day, topic, partition, last_offset, last_processed_at)
            SELECT $1, * FROM UNNEST($2::text[], $3::int[], $4::bigint[], $5::timestamptz[])
            "#,
            day,
            &topics as _,
            &partitions,
            &offsets,
            &times
        );
        let rows = remembered.execute(transaction).await?.rows_affected();
        admission::expect_rows("ends remembered", self.ends.len(), rows)
    }
}

/// The least reference after a day.
fn end(day: Date) -> Uuid {
    day.next_day().map_or_else(Uuid::max, key::begin)
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|answer| answer.code()).is_some_and(|code| code == "55P03")
}

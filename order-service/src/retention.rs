//! Published messages older than the retention are removed, expired keys of callers, and the identities
//! that nobody needs to know any more. Never a message that is unpublished or failed.
//!
//! One instance at a time: an advisory lock, held by the transaction of each page, makes the others
//! pass by. A page is small and its rows are nobody's concern, so nobody ever waits for it.

use std::time::Duration;

use fail::fail_point;
use shared::{health::Component, lifecycle::Shutdown};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    config,
    metrics::{PURGED, PURGED_KEYS},
};

/// The key of the lock that makes it one instance at a time: "purge" in ASCII.
const LOCK: i64 = 0x70_7572_6765;
/// Ended identities stay known at least this long: a row that commits late is still found. Sessions
/// have time-outs far below it.
const KNOWN_FOR: Duration = Duration::from_hours(24);

/// How many rows went.
#[derive(Clone, Copy, Debug)]
pub struct Purged {
    pub messages: u64,
    pub keys: u64,
}

#[derive(Debug)]
pub struct Retention {
    pub pool: PgPool,
    pub settings: config::Retention,
}

impl Retention {
    /// Purges now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(self, shutdown: Shutdown, page: Component) -> anyhow::Result<()> {
        loop {
            match self.purge(&shutdown, &page).await {
                Ok(Purged { messages, keys }) => {
                    page.working();
                    if messages + keys > 0 {
                        tracing::info!(messages, keys, "purged published messages and expired keys");
                    }
                }
                Err(error) => {
                    if page.waiting(&error) {
                        tracing::warn!(error = %error, "cannot purge; trying again later");
                    }
                }
            }
            if shutdown.unless_draining(tokio::time::sleep(self.settings.every)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes what is due, page by page.
    ///
    /// # Errors
    /// The database's.
    pub async fn purge(&self, shutdown: &Shutdown, page: &Component) -> Result<Purged, sqlx::Error> {
        let before = OffsetDateTime::now_utc() - self.settings.published_messages;
        let mut removed = Purged { messages: 0, keys: 0 };
        while !shutdown.is_draining() {
            let _work = page.work();
            let gone = Purged { messages: self.purge_messages(before).await?, keys: self.purge_keys().await? };
            if gone.messages + gone.keys == 0 {
                break;
            }
            removed.messages += gone.messages;
            removed.keys += gone.keys;
            // Leaves the disk to those who wait for it.
            shutdown.unless_draining(tokio::time::sleep(self.settings.pause)).await;
        }
        self.forget_identities().await?;
        Ok(removed)
    }

    /// 0 when nothing is due, or another instance is at it.
    async fn purge_messages(&self, before: OffsetDateTime) -> Result<u64, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let mine = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "locked!""#, LOCK);
        if !mine.fetch_one(&mut *transaction).await? {
            return Ok(0);
        }
        // A reference begins with the time it was drawn at: the primary key leads to the old rows,
        // of which all but a few may go, and never to the rest of the table.
        let removed = sqlx::query!(
            r#"
            DELETE FROM outbox WHERE message_ref = ANY (ARRAY(
                SELECT message_ref FROM outbox WHERE message_ref < $1 AND state = 'published' AND published_at < $2
                ORDER BY message_ref LIMIT $3 FOR UPDATE SKIP LOCKED
            ))
            "#,
            first_reference_of(before),
            before,
            i64::from(self.settings.batch_size)
        );
        let removed = removed.execute(&mut *transaction).await?.rows_affected();
        fail_point!("retention::before_commit", |how| Err(shared::failpoint::kill_or_fail(how)));
        transaction.commit().await?;
        PURGED.add(removed);
        fail_point!("retention::committed", |how| Err(shared::failpoint::kill_or_fail(how)));
        Ok(removed)
    }

    /// One statement: whoever places under a key that is just being purged waits for its end, and that
    /// must not be up to a process which may be paused.
    async fn purge_keys(&self) -> Result<u64, sqlx::Error> {
        let removed = sqlx::query!(
            r#"
            WITH mine AS MATERIALIZED (SELECT pg_try_advisory_xact_lock($1) AS locked)
            DELETE FROM idempotency_keys WHERE caller_key = ANY (ARRAY(
                SELECT caller_key FROM idempotency_keys
                WHERE (SELECT locked FROM mine) AND placed_at <= now() - make_interval(secs => $2)
                ORDER BY placed_at LIMIT $3 FOR UPDATE SKIP LOCKED
            ))
            "#,
            LOCK,
            self.settings.idempotency_keys.as_secs_f64(),
            i64::from(self.settings.batch_size)
        );
        let removed = removed.execute(&self.pool).await?.rows_affected();
        PURGED_KEYS.add(removed);
        Ok(removed)
    }

    async fn forget_identities(&self) -> Result<(), sqlx::Error> {
        let before = OffsetDateTime::now_utc() - KNOWN_FOR;
        sqlx::query!(
            r#"
            DELETE FROM instances
            WHERE instance_id <> 0 AND ended_at < $1
                AND instance_id IS DISTINCT FROM (
                    SELECT min(owner) FROM outbox WHERE owner >= instance_id AND state = 'unpublished')
            "#,
            before
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// The least reference that can be drawn at `moment`: its first 48 bits are the milliseconds.
fn first_reference_of(moment: OffsetDateTime) -> Uuid {
    let millis = u128::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_sort_by_the_moment_they_are_drawn_at() {
        let before = OffsetDateTime::now_utc();
        let drawn = Uuid::now_v7();
        assert!(first_reference_of(before) <= drawn);
        assert!(drawn < first_reference_of(OffsetDateTime::now_utc() + Duration::from_millis(2)));
    }
}

//! Expired keys of callers are removed, and the identities and rebroadcasts that nobody needs to know any more.
//! Messages leave with their day, see [`crate::partitions`].
//!
//! One instance at a time: an advisory lock, held by the transaction of each page, makes the others
//! pass by. A page is small and its rows are nobody's concern, so nobody ever waits for it.

use std::time::Duration;

use fail::fail_point;
use shared::{database::Pool, health::Component, lifecycle::Shutdown};

use crate::{config, metrics::PURGED_KEYS};

/// The key of the lock that makes it one instance at a time: "purge" in ASCII.
const LOCK: i64 = 0x70_7572_6765;
/// No page takes longer: the server ends its statement before.
const ANSWER_WITHIN: Duration = Duration::from_secs(11);
/// An identity stays known for so long after nothing was left in its log: for people who look.
const KNOWN_FOR: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub struct Retention {
    pub pool: Pool,
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
                Ok(keys) => {
                    page.working();
                    if keys > 0 {
                        tracing::info!(keys, "purged expired keys");
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

    /// Removes what is due, page by page; how many keys that were.
    ///
    /// # Errors
    /// The database's.
    pub async fn purge(&self, shutdown: &Shutdown, page: &Component) -> Result<u64, sqlx::Error> {
        let mut removed = 0;
        while !shutdown.is_draining() {
            let keys = page.work(ANSWER_WITHIN, self.purge_keys()).await?;
            if keys == 0 {
                break;
            }
            removed += keys;
            // Leaves the disk to those who wait for it.
            shutdown.unless_draining(tokio::time::sleep(self.settings.pause)).await;
        }
        page.work(ANSWER_WITHIN, self.forget()).await?;
        page.work(ANSWER_WITHIN, self.forget_rejections()).await?;
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
        fail_point!("retention::purged", |how| Err(shared::failpoint::kill_or_fail(how)));
        PURGED_KEYS.add(removed);
        Ok(removed)
    }

    /// What the broker said of a message is known for as long as the message.
    async fn forget_rejections(&self) -> Result<(), sqlx::Error> {
        sqlx::query!(
            r#"
            DELETE FROM rejections WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM rejections WHERE rejected_at < now() - make_interval(secs => $1)
                ORDER BY rejected_at LIMIT $2 FOR UPDATE SKIP LOCKED
            ))
            "#,
            self.settings.published_messages.as_secs_f64(),
            i64::from(self.settings.batch_size)
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn forget(&self) -> Result<(), sqlx::Error> {
        fail_point!("retention::before_forgetting", |how| Err(shared::failpoint::kill_or_fail(how)));
        sqlx::query!(
            r#"
            WITH forgotten AS (
                -- Its messages are counted first.
                DELETE FROM instances i WHERE done_at < now() - make_interval(secs => $1)
                    AND EXISTS (SELECT FROM counted_logs c WHERE c.instance = i.instance_id AND c.is_whole)
            )
            DELETE FROM rebroadcasts WHERE done_at < now() - make_interval(secs => $1)
            "#,
            KNOWN_FOR.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        // What was stated later says all that was stated before. A log that is forgotten has nothing to say.
        sqlx::query!(
            r#"
            WITH said AS (
                DELETE FROM announced WHERE announced_to < (SELECT max(announced_to) FROM announced)
            ), counted AS (
                DELETE FROM counted_logs c WHERE NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = c.instance)
            )
            DELETE FROM log_progress p
            WHERE settled_until < (SELECT max(settled_until) FROM log_progress l WHERE l.instance = p.instance)
                OR NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = p.instance)
            "#
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

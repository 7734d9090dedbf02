//! Expired keys of callers are removed, final orders where `retention.orders` is set, and what the outbox need not know
//! any more.
//!
//! One instance at a time: an advisory lock, held by the transaction of each page, makes the others
//! pass by. A page is small and its rows are nobody's concern, so nobody ever waits for it.

use std::time::Duration;

use fail::fail_point;
use shared::runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown};
use time::{OffsetDateTime, macros::datetime};
use tokio::time::Instant;

use crate::{
    config,
    metrics::{PURGED_KEYS, PURGED_ORDERS},
};

/// No page takes longer: the server ends its statement before.
const ANSWER_WITHIN: Duration = Duration::from_secs(11);
/// How often all old orders are looked at again: those that were not final at the time, or whose messages were not gone.
const ALL_ORDERS_EVERY: Duration = Duration::from_hours(1);

/// Before everything that can be placed.
const EVER: OffsetDateTime = datetime!(0001-01-01 0:00 UTC);

#[derive(Debug)]
pub struct Retention {
    pub outbox: outbox::Retention,
    pub pool: Pool,
    pub settings: config::RetentionSettings,
    pub looked_at: LookedAt,
}

/// Up to where old orders were looked at: what stays is not looked at every time.
#[derive(Clone, Copy, Debug)]
pub struct LookedAt {
    placed_at: OffsetDateTime,
    order_id: i64,
    began_at: Instant,
}

impl Default for LookedAt {
    fn default() -> Self {
        Self { placed_at: EVER, order_id: 0, began_at: Instant::now() }
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purged {
    pub keys: u64,
    pub orders: u64,
}

impl Retention {
    /// Purges now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(mut self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        loop {
            match self.purge(&shutdown, &status).await {
                Ok(Purged { keys, orders }) => {
                    status.ok();
                    if keys > 0 {
                        tracing::info!(keys, "purged expired keys");
                    }
                    if orders > 0 {
                        tracing::info!(orders, "purged old orders");
                    }
                }
                Err(error) => status.failing(&error, "cannot purge; trying again later"),
            }
            if shutdown.unless_draining(tokio::time::sleep(self.settings.every)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes what is due, page by page. What fails keeps nothing else from its turn.
    ///
    /// # Errors
    /// The database's.
    pub async fn purge(&mut self, shutdown: &Shutdown, status: &TaskStatus) -> Result<Purged, sqlx::Error> {
        let keys = self.purge_all_keys(shutdown, status).await;
        let forgotten = self.outbox.forget(shutdown, status).await;
        let orders = match self.settings.orders {
            Some(kept_for) => self.purge_orders(kept_for, shutdown, status).await,
            None => Ok(0),
        };
        forgotten?;
        Ok(Purged { keys: keys?, orders: orders? })
    }

    async fn purge_all_keys(&self, shutdown: &Shutdown, status: &TaskStatus) -> Result<u64, sqlx::Error> {
        let mut removed = 0;
        // While somebody keeps a snapshot, the rows of the pages before are still there, dead: they are not read again.
        let mut behind = Some(EVER);
        while let Some(from) = behind.filter(|_| !shutdown.is_draining()) {
            let (keys, last) = status.busy(ANSWER_WITHIN, self.purge_keys(from)).await?;
            behind = last;
            if keys == 0 {
                break;
            }
            removed += keys;
            // Leaves the disk to those who wait for it.
            shutdown.unless_draining(tokio::time::sleep(self.settings.pause)).await;
        }
        Ok(removed)
    }

    /// Goes on behind what was looked at before; from the beginning once an hour.
    async fn purge_orders(
        &mut self,
        kept_for: Duration,
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> Result<u64, sqlx::Error> {
        if self.looked_at.began_at.elapsed() >= ALL_ORDERS_EVERY {
            self.looked_at = LookedAt::default();
        }
        let mut removed = 0;
        while !shutdown.is_draining() {
            let done = sqlx::query!(
                r#"
                SELECT removed AS "removed!", last_placed_at, last_order_id
                FROM purge_orders(make_interval(secs => $1), $2, $3, $4)
                "#,
                kept_for.as_secs_f64(),
                self.looked_at.placed_at,
                self.looked_at.order_id,
                i32::try_from(self.settings.batch_size).expect("it is at most 100,000")
            );
            let done = status.busy(ANSWER_WITHIN, done.fetch_one(&self.pool)).await?;
            let Some(last) = done.last_placed_at.zip(done.last_order_id) else { break };
            (self.looked_at.placed_at, self.looked_at.order_id) = last;
            let orders = done.removed.unsigned_abs();
            PURGED_ORDERS.add(orders);
            removed += orders;
            shutdown.unless_draining(tokio::time::sleep(self.settings.pause)).await;
        }
        Ok(removed)
    }

    /// One statement: whoever places under a key that is just being purged waits for its end, and that
    /// must not be up to a process which may be paused.
    ///
    /// How many keys of `from` or later went, and the time of the last.
    async fn purge_keys(&self, from: OffsetDateTime) -> Result<(u64, Option<OffsetDateTime>), sqlx::Error> {
        let removed = sqlx::query!(
            r#"
            WITH mine AS MATERIALIZED (
                SELECT pg_try_advisory_xact_lock('idempotency_keys'::regclass::oid::bigint) AS locked
            ), gone AS (
                DELETE FROM idempotency_keys WHERE caller_key = ANY (ARRAY(
                    SELECT caller_key FROM idempotency_keys
                    WHERE (SELECT locked FROM mine) AND placed_at <= now() - make_interval(secs => $1) AND placed_at >= $3
                    ORDER BY placed_at LIMIT $2 FOR UPDATE SKIP LOCKED
                ))
                RETURNING placed_at
            )
            SELECT count(*) AS "keys!", max(placed_at) AS last FROM gone
            "#,
            self.settings.idempotency_keys.as_secs_f64(),
            i64::from(self.settings.batch_size),
            from
        );
        let removed = removed.fetch_one(&self.pool).await?;
        let (removed, last) = (removed.keys.unsigned_abs(), removed.last);
        fail_point!("retention::purged", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        PURGED_KEYS.add(removed);
        Ok((removed, last))
    }
}

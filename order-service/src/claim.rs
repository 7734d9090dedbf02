//! How rows that are nobody's come into memory: at startup, after an overflow, when another
//! instance has ended, after a retry. One statement serves them all.

use std::{num::NonZeroUsize, time::Duration};

use fail::fail_point;
use shared::{
    database::{Failure, within},
    health::Component,
    lifecycle::Shutdown,
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    config,
    instance::{Instance, InstanceId},
    metrics::{CLAIMED, CLAIMS_IN_DOUBT},
    outbox,
    queue::{Origin, Queue},
};

/// After this long the connection is given up. The claim may still be carried out.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The background task that claims.
#[derive(Debug)]
pub struct Claimer {
    pub pool: PgPool,
    pub queue: Queue,
    pub instance: Instance,
    pub page_size: NonZeroUsize,
}

impl Claimer {
    #[must_use]
    pub fn new(settings: &config::Claim, queue_capacity: u32, pool: PgPool, queue: Queue, instance: Instance) -> Self {
        // A page larger than the queue would wait for room that never comes.
        let page = settings.page_size.min(queue_capacity.div_ceil(2));
        let page_size = NonZeroUsize::new(page as usize).expect("both settings are at least 1");
        Self { pool, queue, instance, page_size }
    }

    /// Looks for rows that are nobody's until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again at the session's next look.
    pub async fn run(self, shutdown: Shutdown, page: Component) -> anyhow::Result<()> {
        while !shutdown.is_draining() {
            let wait = async {
                tokio::select! {
                    () = self.instance.left_behind() => {}
                    () = self.queue.overflowed() => {}
                }
            };
            if shutdown.unless_draining(wait).await.is_none() {
                break;
            }
            match self.claim_all(&shutdown, &page).await {
                Ok(()) => page.working(),
                Err(error) => {
                    if page.waiting(&error) {
                        tracing::warn!(error = %error, "cannot claim messages; trying again");
                    }
                }
            }
        }
        Ok(())
    }

    /// Claims, page by page and as room comes free, until nothing is left that is nobody's.
    ///
    /// # Errors
    /// The database's. Nothing is left in doubt.
    pub async fn claim_all(&self, shutdown: &Shutdown, page: &Component) -> Result<(), sqlx::Error> {
        for from in outbox::left_behind(&self.pool).await? {
            // References commit out of order: a pass may miss a late one, the next look finds it.
            let mut after = Uuid::nil();
            while let Some(last) = self.claim_page(from, after, shutdown, page).await? {
                after = last;
            }
        }
        Ok(())
    }

    /// The reference of the page's last row; none after the last page, or when the drain begins.
    async fn claim_page(
        &self,
        from: InstanceId,
        after: Uuid,
        shutdown: &Shutdown,
        page: &Component,
    ) -> Result<Option<Uuid>, sqlx::Error> {
        let Some(slots) = shutdown.unless_draining(self.queue.slots(self.page_size)).await else {
            return Ok(None);
        };
        let _work = page.work();
        let owner = self.queue.owner();
        if from == owner {
            // Ended by another, and the session is about to find out.
            return Ok(None);
        }
        let limit = i64::try_from(slots.len()).unwrap_or(i64::MAX);
        fail_point!("claim::before", |how| Err(shared::failpoint::kill_or_fail(how)));
        // Without a connection nothing is sent, and nothing is in doubt.
        let mut connection = self.pool.acquire().await?;
        let claiming = async {
            let messages = outbox::claim(&mut connection, from, owner, after, limit).await?;
            fail_point!("claim::answer_lost", |_| Err(sqlx::Error::PoolTimedOut));
            Ok(messages)
        };
        match within(ANSWER_WITHIN, claiming).await {
            Ok(messages) => {
                fail_point!("claim::committed", |_| std::process::abort());
                CLAIMED.add(messages.len() as u64);
                let full = messages.len() == slots.len();
                let last = messages.last().map(|message| message.message_ref);
                for (message, slot) in messages.into_iter().zip(slots) {
                    self.queue.push(message, owner, slot, Origin::Claimed);
                }
                Ok(last.filter(|_| full))
            }
            Err(error) => {
                // The answer may have been lost on its way: rows may be ours that are in no memory.
                if Failure::of(&error) == Failure::Outage {
                    // An answer that is still under way would meet the connection's next user.
                    drop(connection.detach());
                    drop(slots);
                    CLAIMS_IN_DOUBT.add(1);
                    tracing::warn!("the outcome of a claim is unknown");
                    shutdown.unless_draining(self.instance.replaced_after_doubt(owner)).await;
                }
                Err(error)
            }
        }
    }
}

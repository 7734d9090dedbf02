//! How much of its partitions this instance has still to count: what the broker has, less what is
//! counted. Asked of the broker and not of the client, which knows nothing of what it does not fetch.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{health::Component, lifecycle::Shutdown};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::{group::Group, watermarks::Broker};
use crate::metrics::{LAG_MESSAGES, LAG_SECONDS};

/// Partitions are asked of one by one: thousands of them take a while.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Lag {
    pub broker: Broker,
    pub group: Arc<Group>,
    pub every: Duration,
}

impl Lag {
    /// Asks now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(self, shutdown: Shutdown, page: Component) -> anyhow::Result<()> {
        while !shutdown.is_draining() {
            match shutdown.unless_draining(page.work(ANSWERS_WITHIN, self.messages())).await {
                Some(Ok(messages)) => {
                    LAG_MESSAGES.set_count(messages);
                    page.working();
                }
                // Whoever reads tells of the outage.
                Some(Err(error)) => drop(page.waiting(format!("{error:#}"))),
                None => {}
            }
            shutdown.unless_draining(sleep(self.every)).await;
        }
        Ok(())
    }

    /// How many messages are on the partitions of this member and not counted.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn messages(&self) -> anyhow::Result<u64> {
        let assigned = self.group.assigned();
        if assigned.is_empty() {
            return Ok(0);
        }
        // Where nothing was counted since the assignment, reading goes on where the group left off.
        let committed = self.broker.committed(assigned.clone()).await?;
        fail::fail_point!("lag::asked");
        let marks = self.broker.watermarks(assigned).await?;
        let counted = self.group.counted_up_to();
        let waiting = marks.iter().map(|(partition, marks)| {
            let next = counted.get(partition).or_else(|| committed.get(partition)).copied();
            marks.high - next.unwrap_or(marks.low).clamp(marks.low, marks.high)
        });
        Ok(waiting.sum::<i64>().unsigned_abs())
    }
}

/// The oldest message that is being counted: what came later waits behind it.
#[derive(Clone, Debug, Default)]
pub struct InHand(Arc<Mutex<Option<OffsetDateTime>>>);

impl InHand {
    /// Notes when the oldest message was sent of what is being counted now, if anything is.
    pub fn note(&self, oldest: Option<OffsetDateTime>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    /// Tells how old it is.
    pub fn tell(&self) -> impl Fn() + Send + Sync + use<> {
        let Self(oldest) = self.clone();
        move || {
            let oldest = *oldest.lock().unwrap_or_else(PoisonError::into_inner);
            LAG_SECONDS.set(oldest.map_or(0.0, seconds_since));
        }
    }
}

/// By this machine's clock and Kafka's; never negative.
pub fn seconds_since(sent: OffsetDateTime) -> f64 {
    (OffsetDateTime::now_utc() - sent).as_seconds_f64().max(0.0)
}

//! Whether the topic still follows what was read from it. Messages can be deleted before anybody read
//! them, and a topic can be deleted and created anew under its name. Neither is cured here, reading
//! goes on from the first message there is in both cases; but nobody shall find out by chance. And
//! whether Kafka has the offsets it was told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shared::{health::Component, lifecycle::Shutdown};
use sqlx::PgPool;
use tokio::time::sleep;

use super::{
    group::{Doubts, Group, Partition},
    positions::{self, Jump},
    watermarks::{Broker, Watermarks},
};
use crate::metrics::{CREATED_ANEW, LOST};

/// A topic created anew is recognised while it has fewer messages than the one before had.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Doubts are looked at at once, but not more often: holes in a topic cause many.
const DOUBTS_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Continuity {
    pub pool: PgPool,
    pub broker: Broker,
    pub group: Arc<Group>,
    pub page: Component,
    /// Positions below the low watermark at the last look.
    pub behind: BTreeMap<Partition, i64>,
}

impl Continuity {
    /// Looks now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        while !shutdown.is_draining() {
            let work = self.page.work();
            match shutdown.unless_draining(self.look()).await {
                Some(Err(error)) => {
                    // Whoever reads and counts tells of the outage.
                    self.page.waiting(format!("{error:#}"));
                }
                Some(Ok(())) => self.page.working(),
                None => {}
            }
            drop(work);
            let next = async {
                sleep(DOUBTS_EVERY).await;
                tokio::select! {
                    () = sleep(LOOK_EVERY.saturating_sub(DOUBTS_EVERY)) => {}
                    () = self.group.doubt.notified() => {}
                }
            };
            shutdown.unless_draining(next).await;
        }
        Ok(())
    }

    /// One look at the partitions of this member.
    ///
    /// # Errors
    /// The database or the broker does not answer.
    pub async fn look(&mut self) -> anyhow::Result<()> {
        let owed = self.group.owed();
        if !owed.is_empty() {
            self.group.stored(&self.broker.committed(owed).await?);
        }
        let doubts = self.group.take_doubts();
        let done = self.compare(&doubts).await;
        if done.is_err() {
            self.group.doubt_again(doubts);
        }
        done
    }

    async fn compare(&mut self, doubts: &Doubts) -> anyhow::Result<()> {
        let mut partitions = self.group.assigned();
        // What is counted is in the positions, so these are read later.
        let counted = self.group.counted_up_to();
        // Read before the watermarks are: those of the same topic only grow.
        let mut connection = self.pool.acquire().await?;
        let positions = positions::next_offsets(&mut connection, &partitions).await?;
        drop(connection);
        partitions.retain(|partition| positions.contains_key(partition));
        partitions.extend(doubts.jumps.keys().filter(|partition| !positions.contains_key(*partition)).cloned());
        if partitions.is_empty() {
            return Ok(());
        }
        let marks = self.broker.watermarks(partitions).await?;
        for (partition, jump) in &doubts.jumps {
            if let Some(marks) = marks.get(partition) {
                self.lost(partition, jump.lost(*marks));
            }
        }
        let mut behind = BTreeMap::new();
        for (partition, position) in positions {
            let Some(marks) = marks.get(&partition).copied() else {
                continue;
            };
            let counted = counted.get(&partition).copied().filter(|next| *next <= marks.high);
            let went_back = doubts.went_back.contains(&partition);
            if marks.high < position || went_back {
                let next = counted.unwrap_or(marks.low);
                // It moves where counting has passed the old position already, which is as true a sign.
                if positions::replace(&self.pool, &partition, position, next).await? || went_back {
                    self.created_anew(&partition, position, marks);
                }
            } else if let Some(next) = counted.filter(|next| *next > position) {
                // Counted while the position was set back.
                positions::replace(&self.pool, &partition, position, next).await?;
            } else if marks.low > position {
                // At the second look, for what was read in time may not be counted at the first.
                if self.behind.get(&partition) != Some(&position) {
                    behind.insert(partition, position);
                } else if positions::replace(&self.pool, &partition, position, marks.low).await? {
                    self.lost(&partition, marks.low - position);
                }
            }
        }
        self.behind = behind;
        Ok(())
    }

    /// Reading has begun at the new topic's first message, or will: an offset out of its range makes
    /// the client begin there.
    fn created_anew(&self, partition: &Partition, position: i64, marks: Watermarks) {
        self.group.begins_anew(partition, marks.high);
        CREATED_ANEW.add(1);
        let (topic, number) = partition;
        let news = format!("partition {number} of {topic} was created anew: it was read up to {position}");
        tracing::error!(
            messaging.destination.name = topic,
            messaging.destination.partition.id = number,
            position,
            "the topic was created anew"
        );
        self.page.waiting(news);
    }

    fn lost(&self, partition: &Partition, messages: i64) {
        let Some(messages) = u64::try_from(messages).ok().filter(|messages| *messages > 0) else {
            return;
        };
        LOST.add(messages);
        let (topic, number) = partition;
        let news = format!("{messages} messages of partition {number} of {topic} were deleted unread");
        tracing::error!(
            messaging.destination.name = topic,
            messaging.destination.partition.id = number,
            messages,
            "messages were deleted before they were read"
        );
        self.page.waiting(news);
    }
}

impl Jump {
    /// How many offsets of those jumped over the topic does not have any more; none where it has
    /// them all and they are holes.
    fn lost(self, marks: Watermarks) -> i64 {
        marks.low.min(self.came) - self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_low_watermark_is_lost() {
        let lost = |low| Jump { expected: 10, came: 20 }.lost(Watermarks { low, high: 100 });
        assert_eq!([lost(30), lost(20), lost(15)], [10, 10, 5]);
        assert!(lost(10) <= 0 && lost(0) <= 0, "a hole");
    }
}

//! Partitions that are not this member's, held against the database: another instance counts them, or nobody does. Whoever
//! has joined the group with a database of its own takes partitions and commits their offsets, while every instance of
//! this installation sees all of its own counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use shared::runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown};
use tokio::time::{Instant, sleep};

use super::{
    group::Group,
    lag::{ANSWERS_WITHIN, standing},
    positions,
    watermarks::{Broker, Span},
};
use crate::{metrics::UNREAD_ELSEWHERE, place::Partition};

/// Every instance asks about all partitions.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A partition that stands still for longer is named. Partitions that move to another member stand for as long as that
/// takes.
const STANDS_FOR: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Elsewhere {
    pub pool: Pool,
    pub broker: Broker,
    pub group: Arc<Group>,
    pub topics: Vec<String>,
    /// What is to be counted next of those where something is, and since when.
    pub waits: BTreeMap<Partition, (i64, Instant)>,
}

impl Elsewhere {
    /// Looks now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(mut self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        while !shutdown.is_draining() {
            match shutdown.unless_draining(status.busy(ANSWERS_WITHIN, self.look())).await {
                Some(Ok(None)) => status.ok(),
                Some(Ok(Some(trouble))) => drop(status.waiting(trouble)),
                // Whoever reads and counts tells of the outage.
                Some(Err(error)) => {
                    UNREAD_ELSEWHERE.forget();
                    status.waiting(format!("{error:#}"));
                }
                None => {}
            }
            shutdown.unless_draining(sleep(LOOK_EVERY)).await;
        }
        Ok(())
    }

    /// One look: what stands still, if anything does.
    async fn look(&mut self) -> anyhow::Result<Option<String>> {
        let own: BTreeSet<_> = self.group.assigned().into_iter().collect();
        let all = self.broker.partitions(self.topics.clone()).await?;
        let others: Vec<_> = all.into_iter().filter(|partition| !own.contains(partition)).collect();
        let marks = self.broker.watermarks(others.clone()).await?;
        // After the broker: what is counted meanwhile is no reason to doubt.
        let mut connection = self.pool.acquire().await?;
        let positions = positions::of(&mut connection, &others).await;
        connection.end_with(&positions);
        let positions = positions?;
        let spans = marks.into_iter().filter_map(|(partition, marks)| {
            let next = positions.get(&partition).map_or(marks.low, |position| position.next_offset.max(marks.low));
            (next < marks.stable).then_some(Span { partition, from: next, to: marks.stable })
        });
        let mut waits = BTreeMap::new();
        let mut stand = BTreeSet::new();
        for span in spans {
            let known = self.waits.get(&span.partition).filter(|(next, _)| *next == span.from);
            let since = known.map_or_else(Instant::now, |(_, since)| *since);
            waits.insert(span.partition.clone(), (span.from, since));
            if since.elapsed() >= STANDS_FOR {
                stand.insert(span);
            }
        }
        self.waits = waits;
        let with_messages =
            self.broker.have_messages(stand).await?.into_iter().filter(|(_, has_messages)| *has_messages);
        let (mut longest, mut told) = (Duration::ZERO, Vec::new());
        for (Span { partition, from, to }, _) in with_messages {
            let unread = self.waits.get(&partition).map_or(Duration::ZERO, |(_, since)| since.elapsed());
            longest = longest.max(unread);
            told.push(format!("{}; is somebody else in the group?", standing(&partition, to - from, unread)));
        }
        UNREAD_ELSEWHERE.set(longest.as_secs_f64());
        Ok(told.first().cloned())
    }
}

//! What the sources of activities tell of their progress, read from a topic of its own by every instance: up to when
//! everything is announced, and what was written in each minute. Held against the positions of the consumers it
//! says how far the figures are complete.
//!
//! Everything is written with `greatest`: it does not matter which instance is first, or reads it again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer, message::BorrowedMessage};
use shared::{
    contract::message::ActivityTypeCode,
    runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown},
};
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    completeness::{self, Announcement, Counts},
    consumer::watermarks::{Broker, Reader},
    place::Partition,
};

/// How often it is looked whether what is announced is counted, while there is something to look for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Announcements that wait to be counted: over an hour of one source. Of more, some between the oldest and the newest
/// are forgotten, and what is complete moves in larger steps.
const PENDING: usize = 5000;
/// The same is asked again after this long: the minutes of an outage take a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Before the database is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at minutes that differ, and at days.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Between two looks at figures of days: one that differs at both is named, within two minutes of whatever it was.
const FIGURES_EVERY: Duration = Duration::from_secs(20);

/// What is announced and not counted yet.
#[derive(Clone, Debug)]
struct Pending {
    source: String,
    topic: String,
    announced_to: OffsetDateTime,
    ends: BTreeMap<i32, i64>,
}

/// The background task that reads it.
#[derive(Debug)]
pub struct Progress {
    pub broker: Broker,
    /// Where sources tell of their progress.
    pub topic: String,
    pub topics: Vec<String>,
    pub time_zone: String,
    pub pool: Pool,
}

impl Progress {
    /// Reads until the drain begins.
    ///
    /// # Errors
    /// librdkafka refuses the topic.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        while let Some(followed) = shutdown.unless_draining(self.follow(&status)).await {
            followed?;
        }
        Ok(())
    }

    /// Begins with the last announcement that is known, to learn again what it waits for.
    async fn assign(&self, reader: &Reader, status: &TaskStatus) -> anyhow::Result<()> {
        let offset = loop {
            match completeness::told_offset(&self.pool).await {
                Ok(offset) => break offset.map_or(Offset::Beginning, Offset::Offset),
                Err(error) => drop(status.waiting(&error)),
            }
            sleep(PAUSE).await;
        };
        let mut assigned = TopicPartitionList::with_capacity(1);
        assigned.add_partition_offset(&self.topic, 0, offset).context("kafka.progress_topic")?;
        reader.assign(&assigned).context("kafka.progress_topic")
    }

    /// Until there is another client to read with.
    async fn follow(&self, status: &TaskStatus) -> anyhow::Result<()> {
        let reader = self.broker.reader();
        self.assign(&reader, status).await?;
        let mut pending = VecDeque::new();
        let mut checked = tokio::time::Instant::now();
        let mut figures_checked = checked;
        while Arc::ptr_eq(&reader, &self.broker.reader()) {
            tokio::select! {
                message = reader.recv() => match message {
                    Ok(message) => self.take(&message, &mut pending, status).await,
                    // That of the partition, which is tried again by the client.
                    Err(error) => drop(status.waiting(&error)),
                },
                () = sleep(LOOK_EVERY), if !pending.is_empty() => {}
                () = sleep(CHECK_EVERY) => {}
            }
            let mut done = status.busy(ANSWER_WITHIN, self.look(&mut pending)).await;
            if done.is_ok() && checked.elapsed() >= CHECK_EVERY {
                checked = tokio::time::Instant::now();
                let checking = completeness::check(&self.pool, &self.topics, &self.time_zone);
                done = status.busy(ANSWER_WITHIN, checking).await;
            }
            if done.is_ok() && figures_checked.elapsed() >= FIGURES_EVERY {
                figures_checked = tokio::time::Instant::now();
                let checking = completeness::check_figures(&self.pool, &self.topics, &self.time_zone);
                done = status.busy(ANSWER_WITHIN, checking).await;
            }
            match done {
                Ok(()) => status.ok(),
                Err(error) => {
                    status.failing(&error, "cannot tell how far the figures are complete; trying again");
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(())
    }

    /// Writes down what is told. One that cannot be read says nothing: what is complete stands still then.
    async fn take(&self, message: &BorrowedMessage<'_>, pending: &mut VecDeque<Pending>, status: &TaskStatus) {
        let announcement = match parse(message.payload().unwrap_or_default()) {
            Ok(announcement) => announcement,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(offset = message.offset(), error, "an announcement of progress cannot be read");
                return;
            }
        };
        let topic = announcement.topic.clone().or_else(|| self.topics.first().cloned()).unwrap_or_default();
        if !self.topics.contains(&topic) {
            return;
        }
        let note = || completeness::note(&self.pool, &announcement, &topic, message.offset());
        while let Err(error) = status.busy(ANSWER_WITHIN, note()).await {
            status.failing(&error, "cannot note what a source tells; trying again");
            sleep(PAUSE).await;
        }
        let Announcement { source, announced_to, ends, .. } = announcement;
        if pending.len() == PENDING {
            pending.pop_back();
        }
        pending.push_back(Pending { source, topic, announced_to, ends });
    }

    /// Whatever is announced and counted by now is complete.
    async fn look(&self, pending: &mut VecDeque<Pending>) -> Result<(), sqlx::Error> {
        if pending.is_empty() {
            return Ok(());
        }
        let positions = completeness::positions(&self.pool, &self.topics).await?;
        let is_counted = |one: &Pending| {
            one.ends.iter().all(|(partition, end)| {
                *end == 0
                    || positions.get(&Partition::new(one.topic.as_str(), *partition)).is_some_and(|next| next >= end)
            })
        };
        let mut complete: BTreeMap<String, OffsetDateTime> = BTreeMap::new();
        for one in pending.iter().filter(|one| is_counted(one)) {
            let to = complete.entry(one.source.clone()).or_insert(one.announced_to);
            *to = (*to).max(one.announced_to);
        }
        for (source, to) in &complete {
            completeness::is_counted(&self.pool, source, *to).await?;
        }
        pending.retain(|one| complete.get(&one.source).is_none_or(|to| one.announced_to > *to));
        Ok(())
    }
}

/// More than any source can have written, and few enough to be added up.
const MOST: i64 = 1_000_000_000_000;
const MOST_BYTES_OF_A_NAME: usize = 249;

/// An announcement that can be kept; what it counts is a minute.
fn parse(value: &[u8]) -> anyhow::Result<Announcement> {
    let announcement: Announcement = serde_json::from_slice(value)?;
    let Announcement { source, topic, unannounced, failed, discarded, counts, .. } = &announcement;
    let is_name = |name: &String| name.len() <= MOST_BYTES_OF_A_NAME && !name.contains(char::is_control);
    anyhow::ensure!(is_name(source) && topic.as_ref().is_none_or(is_name), "a source or topic of no name");
    let is_number = |number: &i64| (0..=MOST).contains(number);
    anyhow::ensure!([unannounced, failed, discarded].into_iter().all(is_number), "a number that cannot be");
    if let Some(Counts { from, to, quantities }) = counts {
        anyhow::ensure!(*to - *from == time::Duration::MINUTE, "counts of something else than a minute");
        anyhow::ensure!(quantities.keys().all(|code| ActivityTypeCode::parse(code).is_some()), "a type of no name");
        anyhow::ensure!(quantities.values().all(is_number), "a quantity that cannot be");
    }
    Ok(announcement)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_cannot_be_is_not_taken() {
        let good = json!({
            "source": "/order-service", "announcedTo": "2026-11-22T14:03:00Z", "ends": {"0": 7}, "unannounced": 0, "failed": 0,
            "counts": {"from": "2026-11-22T14:02:00Z", "to": "2026-11-22T14:03:00Z", "quantities": {"ORDER_CREATED": 5}},
        });
        let is_taken = |announcement: &Value| parse(announcement.to_string().as_bytes()).is_ok();
        assert!(is_taken(&good));
        for (place, value) in [
            ("/source", json!("/order\u{0}")),
            ("/source", json!("x".repeat(300))),
            ("/unannounced", json!(-1)),
            ("/failed", json!(i64::MAX)),
            ("/counts/to", json!("2026-11-22T14:04:00Z")),
            ("/counts/quantities", json!({"ORDER_CREATED": i64::MAX})),
            ("/counts/quantities", json!({"ORDER_CREATED": -1})),
            ("/counts/quantities", json!({"order\u{0}": 1})),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(place).unwrap() = value;
            assert!(!is_taken(&bad), "{bad}");
        }
    }
}

//! What the sources of activities tell of their progress, read from a topic of its own by every instance: up to when
//! everything is announced, and what was written in each minute. Held against the positions of the consumers it
//! says how far the figures are complete.
//!
//! Everything is written with `greatest`: it does not matter which instance is first, or reads it again.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::FutureExt;
use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer, message::BorrowedMessage};
use shared::{
    contract::message::ActivityTypeCode,
    runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown},
};
use tokio::time::sleep;

use crate::{
    completeness::{self, Announced, Announcement, CountedTo, Counts, Told},
    consumer::watermarks::{Broker, Reader, Span},
    place::Partition,
};

/// How often it is looked whether what is announced is counted, while there is something to look for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Announcements of a source that wait to be counted. Of more some between the oldest and the newest are forgotten, and what
/// is complete moves in larger steps.
const PENDING: usize = 100;
/// Announcements noted in one go, of whatever sources.
const NOTED_AT_ONCE: usize = 500;
/// The same is asked again after this long: the minutes of an outage take a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Before the database is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at minutes that differ, and at days.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Between two looks at figures of days: one that differs at both is named, within two minutes of whatever it was.
const FIGURES_EVERY: Duration = Duration::from_secs(20);

/// What is announced and not counted yet, by source.
#[derive(Debug, Default)]
struct Pending(BTreeMap<String, Vec<Announced>>);

impl Pending {
    fn add(&mut self, source: String, announced: Announced) {
        let waiting = self.0.entry(source).or_default();
        if waiting.len() == PENDING {
            // The one whose neighbours are nearest to each other: what stays is spread over all of the time.
            let span = |at: &usize| waiting[at + 1].announced_to - waiting[at - 1].announced_to;
            if let Some(at) = (1..PENDING - 1).min_by_key(span) {
                waiting.remove(at);
            }
        }
        waiting.push(announced);
    }

    /// Up to when each source is counted, where consumers have come this far.
    fn counted(&self, positions: &BTreeMap<Partition, i64>) -> BTreeMap<String, CountedTo> {
        let of_source = |waiting: &[Announced]| {
            let counted = waiting.iter().filter(|one| is_counted(one, positions));
            let newest = counted.max_by_key(|one| one.announced_to)?;
            let later = waiting.iter().filter(|one| one.announced_to > newest.announced_to);
            let failed = later.map(|one| one.failed).fold(newest.failed, i64::max);
            Some(CountedTo { time: newest.announced_to, failed })
        };
        self.0.iter().filter_map(|(source, waiting)| Some((source.clone(), of_source(waiting)?))).collect()
    }

    fn forget(&mut self, counted: &BTreeMap<String, CountedTo>) {
        self.0.retain(|source, waiting| {
            waiting.retain(|one| counted.get(source).is_none_or(|to| one.announced_to > to.time));
            !waiting.is_empty()
        });
    }

    /// The farthest end that is waited for in each partition whose consumers have not come there.
    fn ends_ahead(&self, positions: &BTreeMap<Partition, i64>) -> BTreeMap<Partition, i64> {
        let mut ahead = BTreeMap::new();
        for one in self.0.values().filter_map(|waiting| waiting.last()) {
            for (number, end) in &one.ends {
                let partition = Partition::new(one.topic.as_str(), *number);
                if positions.get(&partition).is_some_and(|next| next < end) {
                    let farthest = ahead.entry(partition).or_insert(*end);
                    *farthest = (*farthest).max(*end);
                }
            }
        }
        ahead
    }
}

fn is_counted(one: &Announced, positions: &BTreeMap<Partition, i64>) -> bool {
    // One that names no partition tells of nothing.
    !one.ends.is_empty()
        && one.ends.iter().all(|(partition, end)| {
            *end == 0 || positions.get(&Partition::new(one.topic.as_str(), *partition)).is_some_and(|next| next >= end)
        })
}

/// Offsets behind the last message of a partition: those of transactions, of which nothing is counted. A consumer's position
/// comes to them with the next message only.
#[derive(Debug, Default)]
struct Empty {
    /// Where consumers stood at the last check and are waited for.
    stood: BTreeMap<Partition, i64>,
    /// From where up to where no message stands.
    spans: BTreeMap<Partition, Range<i64>>,
}

impl Empty {
    /// Moves the positions over what is empty, and forgets that where consumers have gone on.
    fn pass(&mut self, positions: &mut BTreeMap<Partition, i64>) {
        self.spans.retain(|partition, span| {
            let Some(next) = positions.get_mut(partition).filter(|next| **next == span.start) else { return false };
            *next = span.end;
            true
        });
    }

    /// Looks where consumers have not moved since the last check although something is waited for.
    async fn check(
        &mut self,
        broker: &Broker,
        ahead: BTreeMap<Partition, i64>,
        positions: &BTreeMap<Partition, i64>,
    ) -> anyhow::Result<()> {
        let stands = |partition: &Partition| positions.get(partition) == self.stood.get(partition);
        let spans = ahead.iter().filter(|(partition, _)| stands(partition)).filter_map(|(partition, end)| {
            Some(Span { partition: partition.clone(), from: *positions.get(partition)?, to: *end })
        });
        let spans = spans.collect();
        self.stood = ahead.into_keys().filter_map(|one| Some((one.clone(), *positions.get(&one)?))).collect();
        let looked_into = broker.have_messages(spans).await?.into_iter();
        let empty = looked_into.filter(|(_, has_messages)| !has_messages);
        self.spans.extend(empty.map(|(span, _)| (span.partition, span.from..span.to)));
        Ok(())
    }
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

    /// Begins with the last announcement that is known. What waits is known already.
    async fn assign(&self, reader: &Reader, status: &TaskStatus) -> anyhow::Result<Pending> {
        let (offset, waiting) = loop {
            match completeness::told(&self.pool, &self.topics).await {
                Ok(told) => break told,
                Err(error) => drop(status.waiting(&error)),
            }
            sleep(PAUSE).await;
        };
        let mut assigned = TopicPartitionList::with_capacity(1);
        let offset = offset.map_or(Offset::Beginning, Offset::Offset);
        assigned.add_partition_offset(&self.topic, 0, offset).context("kafka.progress_topic")?;
        reader.assign(&assigned).context("kafka.progress_topic")?;
        let mut pending = Pending::default();
        waiting.into_iter().for_each(|(source, announced)| pending.add(source, announced));
        Ok(pending)
    }

    /// Until there is another client to read with, or the database has lost what was noted.
    async fn follow(&self, status: &TaskStatus) -> anyhow::Result<()> {
        let reader = self.broker.reader();
        let mut pending = self.assign(&reader, status).await?;
        let (mut empty, mut noted) = (Empty::default(), None);
        let mut checked = tokio::time::Instant::now();
        let mut figures_checked = checked;
        while Arc::ptr_eq(&reader, &self.broker.reader()) {
            tokio::select! {
                message = reader.recv() => match message {
                    Ok(message) => {
                        if !self.take(&message, &reader, &mut pending, &mut noted, status).await {
                            tracing::warn!("the database has lost what the sources had told: it is read again");
                            return Ok(());
                        }
                    }
                    // That of the partition, which is tried again by the client.
                    Err(error) => drop(status.waiting(&error)),
                },
                () = sleep(LOOK_EVERY), if !pending.0.is_empty() => {}
                () = sleep(CHECK_EVERY) => {}
            }
            let mut done = status.busy(ANSWER_WITHIN, self.look(&mut pending, &mut empty)).await;
            if done.is_ok() && checked.elapsed() >= CHECK_EVERY {
                checked = tokio::time::Instant::now();
                self.pass_empty(&pending, &mut empty, status).await;
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

    /// Writes down what is told, together with what has come by now: however many sources there are. False where the
    /// database does not have any more what was `noted` before: what was told since is to be read once more.
    async fn take(
        &self,
        first: &BorrowedMessage<'_>,
        reader: &Reader,
        pending: &mut Pending,
        noted: &mut Option<i64>,
        status: &TaskStatus,
    ) -> bool {
        let mut told: Vec<Told> = self.read(first).into_iter().collect();
        for _ in 1..NOTED_AT_ONCE {
            match reader.recv().now_or_never() {
                Some(Ok(message)) => told.extend(self.read(&message)),
                Some(Err(error)) => drop(status.waiting(&error)),
                None => break,
            }
        }
        let note = async || {
            let has_all = completeness::told_offset(&self.pool).await? >= *noted;
            if has_all {
                completeness::note(&self.pool, &told).await?;
            }
            Ok::<_, sqlx::Error>(has_all)
        };
        loop {
            match status.busy(ANSWER_WITHIN, note()).await {
                Ok(true) => break,
                Ok(false) => return false,
                Err(error) => status.failing(&error, "cannot note what the sources tell; trying again"),
            }
            sleep(PAUSE).await;
        }
        *noted = told.iter().map(|one| one.offset).max().or(*noted);
        for Told { announcement, topic, .. } in told {
            let Announcement { source, announced_to, ends, failed, .. } = announcement;
            pending.add(source, Announced { topic, announced_to, ends, failed });
        }
        true
    }

    /// One that cannot be read says nothing: what is complete stands still then.
    fn read(&self, message: &BorrowedMessage<'_>) -> Option<Told> {
        let offset = message.offset();
        let announcement = match parse(message.payload().unwrap_or_default()) {
            Ok(announcement) => announcement,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(offset, error, "an announcement of progress cannot be read");
                return None;
            }
        };
        let topic = announcement.topic.clone().or_else(|| self.topics.first().cloned()).unwrap_or_default();
        self.topics.contains(&topic).then_some(Told { announcement, topic, offset })
    }

    /// Whatever is announced and counted by now is complete.
    async fn look(&self, pending: &mut Pending, empty: &mut Empty) -> Result<(), sqlx::Error> {
        if pending.0.is_empty() {
            return Ok(());
        }
        let mut positions = completeness::positions(&self.pool, &self.topics).await?;
        empty.pass(&mut positions);
        let counted = pending.counted(&positions);
        if !counted.is_empty() {
            completeness::are_counted(&self.pool, &counted).await?;
            pending.forget(&counted);
        }
        Ok(())
    }

    /// Finds out whether consumers that stand still have come to the end all the same. Where nobody says they have not.
    async fn pass_empty(&self, pending: &Pending, empty: &mut Empty, status: &TaskStatus) {
        let passing = async {
            let mut positions = completeness::positions(&self.pool, &self.topics).await?;
            empty.pass(&mut positions);
            let ahead = pending.ends_ahead(&positions);
            empty.check(&self.broker, ahead, &positions).await
        };
        if let Err(error) = status.busy(ANSWER_WITHIN, passing).await {
            tracing::debug!(error = format!("{error:#}"), "it cannot be seen whether anything is left to be counted");
        }
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
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn of_a_source_that_is_far_ahead_of_the_consumers_some_moments_are_kept_and_of_the_others_all() {
        let at = |second: i64| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second);
        let announced = |second| Announced {
            topic: "t".into(),
            announced_to: at(second),
            ends: BTreeMap::from([(0, second)]),
            failed: second % 2,
        };
        let mut pending = Pending::default();
        pending.add("/away".into(), announced(7));
        (1..=3600).for_each(|second| pending.add("/order-service".into(), announced(second)));
        let counted = |next| pending.counted(&BTreeMap::from([(Partition::new("t", 0), next)]));
        assert_eq!(counted(0), BTreeMap::new());
        assert_eq!(counted(7)["/away"], CountedTo { time: at(7), failed: 1 });
        let newest = CountedTo { time: at(3600), failed: 0 };
        assert_eq!(counted(3600)["/order-service"], newest, "the newest is always there");
        for next in (300..3600).step_by(300) {
            let CountedTo { time, failed } = counted(next)["/order-service"];
            assert!(time > at(next - 300), "one of the last five minutes, at {next}");
            assert_eq!(failed, 1, "it has failed by now, and what is told later is not counted");
        }
        assert_eq!(pending.0["/order-service"].len(), PENDING);
        let all = counted(3600);
        pending.forget(&all);
        assert!(pending.0.is_empty());
    }

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

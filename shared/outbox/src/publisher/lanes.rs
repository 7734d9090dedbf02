//! The partitions of the topic as sending sees them. Each may have its share of what is in flight, and no more:
//! librdkafka keeps what a partition does not take, without a word and without end, and one without a leader
//! would soon have everything.
//!
//! A partition *stands* when nothing of what it was given gets through. What comes for it beyond its share goes
//! back to the log, see [`crate::log::Log::set_back`], as long as others take theirs; where none does, memory fills
//! and the log falls behind as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::partitioner::Partitioner;
use crate::{
    metrics::{LEADERLESS, STANDING},
    settings::Settings,
};

/// So long without an answer, and a partition stands. Longer than an acknowledgement takes that is only slow; at
/// 5,000 messages a second some 1,000 come meanwhile.
const STANDS_AFTER: Duration = Duration::from_millis(200);
/// When operators are told. A leader's successor is found sooner.
const TOLD_AFTER: Duration = Duration::from_secs(5);
/// Where nobody has told yet how many partitions there are.
const UNKNOWN: i32 = -1;

#[derive(Clone, Debug)]
pub struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    topic: String,
    partitioner: Partitioner,
    max_in_flight: u32,
    book: Mutex<Book>,
    parked: AtomicUsize,
    /// A partition that stood takes messages again.
    opened: Notify,
    /// Something was answered.
    answered: Notify,
}

#[derive(Debug)]
struct Book {
    /// How many partitions there are; 0 while that is not known.
    count: i32,
    lanes: BTreeMap<i32, Lane>,
    leaderless: BTreeSet<i32>,
    /// When anything got through last.
    delivered: Option<Instant>,
    connected: Option<Instant>,
    told: BTreeSet<i32>,
}

#[derive(Debug)]
struct Lane {
    in_flight: u32,
    /// When something got through last, or was given to it after it had nothing.
    moved: Instant,
}

/// A message's place among those of its partition that are in flight.
#[derive(Debug)]
pub struct Entry {
    lanes: Lanes,
    partition: i32,
}

/// Whether a message may be handed over.
#[derive(Debug)]
pub(super) enum Admission {
    Now(Entry),
    /// Its partition has its share in flight, and takes it.
    Soon(i32),
    /// Its partition stands while others do not: it belongs back into its log.
    Back(i32),
}

impl Lanes {
    #[must_use]
    pub fn new(config: &Settings) -> Self {
        let book = Book {
            count: 0,
            lanes: BTreeMap::new(),
            leaderless: BTreeSet::new(),
            delivered: None,
            connected: None,
            told: BTreeSet::new(),
        };
        Self(Arc::new(Shared {
            topic: config.topic.name.clone(),
            partitioner: Partitioner::of(&config.kafka),
            max_in_flight: config.publisher.max_in_flight,
            book: Mutex::new(book),
            parked: AtomicUsize::new(0),
            opened: Notify::new(),
            answered: Notify::new(),
        }))
    }

    /// Until a partition that stood takes messages again.
    pub async fn opened(&self) {
        self.0.opened.notified().await;
    }

    /// Whether it would be of use to hand over messages for this partition.
    #[must_use]
    pub fn is_open(&self, partition: i32) -> bool {
        !self.book().stands(partition, Instant::now())
    }

    pub(super) async fn answered(&self) {
        self.0.answered.notified().await;
    }

    pub(super) fn admit(&self, key: &str) -> Admission {
        let (now, mut book) = (Instant::now(), self.book());
        let partition = match book.count {
            0 => UNKNOWN,
            count => self.0.partitioner.partition(key.as_bytes(), count),
        };
        let share = share(self.0.max_in_flight, book.count);
        let lane = book.lanes.entry(partition).or_insert(Lane { in_flight: 0, moved: now });
        if lane.in_flight < share {
            if lane.in_flight == 0 {
                lane.moved = now;
            }
            lane.in_flight += 1;
            Admission::Now(Entry { lanes: self.clone(), partition })
        } else if partition != UNKNOWN && book.belongs_back(partition, now) {
            Admission::Back(partition)
        } else {
            Admission::Soon(partition)
        }
    }

    /// Whether one more message for this partition may be handed over.
    pub(super) fn has_room(&self, partition: i32) -> bool {
        let book = self.book();
        let in_flight = book.lanes.get(&partition).map_or(0, |lane| lane.in_flight);
        in_flight < share(self.0.max_in_flight, book.count)
    }

    /// Whether what waits for this partition belongs back into its log.
    pub(super) fn belongs_back(&self, partition: i32) -> bool {
        self.book().belongs_back(partition, Instant::now())
    }

    /// So many messages wait in memory for their partition.
    pub(super) fn note_parked(&self, count: usize) {
        self.0.parked.store(count, Ordering::Relaxed);
    }

    /// How many messages wait in memory for their partition. What is no log's cannot go back into one, so nobody
    /// brings more of that while they are many.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.0.parked.load(Ordering::Relaxed)
    }

    /// The topic has so many partitions, and those without a leader. `is_connected` where a broker says so now.
    pub(super) fn know(&self, count: i32, leaderless: BTreeSet<i32>, is_connected: bool) {
        let mut book = self.book();
        if count > 0 {
            book.count = count;
        }
        if is_connected {
            book.connected.get_or_insert_with(Instant::now);
            LEADERLESS.set_count(leaderless.len() as u64);
            book.leaderless = leaderless;
        } else {
            book.connected = None;
        }
    }

    /// Which partitions stand, in words, if any does. Those of which nobody was told before are logged.
    pub(super) fn log_standing(&self) -> Option<String> {
        let now = Instant::now();
        let mut book = self.book();
        // Where no broker is in reach that is told instead.
        let is_connected = book.connected.is_some_and(|since| now - since >= TOLD_AFTER);
        let stands = |lane: &Lane| lane.in_flight > 0 && now - lane.moved >= TOLD_AFTER;
        let standing: BTreeSet<i32> = book
            .lanes
            .iter()
            .filter(|(_, lane)| is_connected && stands(lane))
            .map(|(partition, _)| *partition)
            .collect();
        STANDING.set_count(standing.len() as u64);
        let news: Vec<i32> = standing.difference(&book.told).copied().collect();
        if !news.is_empty() {
            let without_leader = news.iter().filter(|partition| book.leaderless.contains(partition)).count();
            let in_flight: u32 =
                news.iter().filter_map(|partition| book.lanes.get(partition)).map(|lane| lane.in_flight).sum();
            tracing::warn!(
                messaging.destination.name = self.0.topic,
                partitions = list(&news),
                without_leader,
                in_flight,
                "partitions take nothing"
            );
        }
        let text = (!standing.is_empty()).then(|| {
            let all: Vec<i32> = standing.iter().copied().collect();
            format!("partitions of {} take nothing: {}", self.0.topic, list(&all))
        });
        book.told = standing;
        text
    }

    /// Whether operators were told of a partition that stands.
    pub(super) fn any_stands(&self) -> bool {
        !self.book().told.is_empty()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().expect("nothing panics with the lock in hand")
    }
}

/// Every partition may have as much as every other one: however many stand, the rest has its own.
fn share(max_in_flight: u32, count: i32) -> u32 {
    max_in_flight.div_ceil(u32::try_from(count).unwrap_or(0).max(1))
}

/// The first few: a topic may have thousands.
fn list(partitions: &[i32]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<_> = partitions.iter().take(SHOWN).map(i32::to_string).collect();
    let more = partitions.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

impl Book {
    fn stands(&self, partition: i32, now: Instant) -> bool {
        self.lanes.get(&partition).is_some_and(|lane| {
            lane.in_flight > 0 && (self.leaderless.contains(&partition) || now - lane.moved >= STANDS_AFTER)
        })
    }

    /// It stands, and that is its own affair: it has no leader, or something got through elsewhere since. In an
    /// outage of everything the log as a whole falls behind, which costs less.
    fn belongs_back(&self, partition: i32, now: Instant) -> bool {
        self.stands(partition, now)
            && (self.leaderless.contains(&partition)
                || self
                    .lanes
                    .get(&partition)
                    .is_some_and(|lane| self.delivered.is_some_and(|delivered| delivered > lane.moved + STANDS_AFTER)))
    }
}

impl Entry {
    /// None where librdkafka has to choose.
    pub(super) fn partition(&self) -> Option<i32> {
        (self.partition != UNKNOWN).then_some(self.partition)
    }

    /// The message got through.
    pub(super) fn delivered(self) {
        let now = Instant::now();
        let mut book = self.lanes.book();
        book.delivered = Some(now);
        let stood = book.stands(self.partition, now);
        if let Some(lane) = book.lanes.get_mut(&self.partition) {
            lane.moved = now;
        }
        // It has a leader, whatever was told last.
        book.leaderless.remove(&self.partition);
        drop(book);
        if stood {
            self.lanes.0.opened.notify_one();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut book = self.lanes.book();
        if let Some(lane) = book.lanes.get_mut(&self.partition) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            if lane.in_flight == 0 {
                book.lanes.remove(&self.partition);
                // Nothing is known of it any more: it is worth an attempt.
                self.lanes.0.opened.notify_one();
            }
        }
        drop(book);
        self.lanes.0.answered.notify_one();
    }
}

//! This member of the consumer group: which partitions it has, and which offsets it owes Kafka.
//!
//! An offset may be committed when every message before it is committed in Postgres. That holds for
//! what this member has read and counted without a gap since a partition was assigned to it, its
//! tenure. What was read in an earlier tenure is counted all the same, the keys make that harmless,
//! but its offset is nobody's business any more.
//!
//! A partition is held until it is known where its reading begins, and again once it turns out to be another
//! one: it has no tenure then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};
use shared::runtime::kafka::{Credentials, LastFailure, Quiet};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fetched::Fetching;
use crate::place::Partition;

/// One assignment of one partition, from where its reading began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    number: u64,
    /// Of the partition's position, see there.
    pub generation: i64,
}

/// A partition, under one assignment of it to this member.
#[derive(Clone, Debug)]
pub struct AssignedPartition {
    pub topic: String,
    pub partition: i32,
    /// None for what comes from a partition that is not assigned any more, or whose beginning is not known yet.
    pub tenure: Option<Tenure>,
}

impl AssignedPartition {
    #[must_use]
    pub fn partition(&self) -> Partition {
        Partition::new(self.topic.as_str(), self.partition)
    }
}

/// Where the reading of a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    pub offset: i64,
    pub generation: i64,
    /// How far the database has counted it.
    pub position: i64,
}

/// How far the database had counted a partition when this member saw that last. It is never less far, unless it has
/// lost what was committed: a standby that lagged was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub generation: i64,
    pub next_offset: i64,
}

#[derive(Debug, Default)]
pub struct Group {
    /// There may be something to read from Kafka or to tell it.
    pub wake: Notify,
    /// There is something to compare with what the broker has.
    pub doubt: Notify,
    /// A partition is held.
    pub is_held: Notify,
    /// Why the last connection failed.
    pub failure: LastFailure,
    /// What the client has fetched.
    pub fetching: Fetching,
    book: Mutex<Book>,
    /// Grows with each change of the assignment.
    epoch: AtomicU64,
    /// How many events were served that are no messages: logs, errors, rebalances, answers to commits.
    served: AtomicU64,
    counting_ended: CancellationToken,
    /// Which membership there is now.
    membership: AtomicU64,
}

/// One membership, as its client has it. What is told by one that another has replaced counts no more.
#[derive(Debug)]
pub struct Membership {
    group: Arc<Group>,
    number: u64,
    pub credentials: Credentials,
}

#[derive(Debug, Default)]
struct Book {
    /// None for those that are held.
    assigned: BTreeMap<Partition, Option<Tenure>>,
    /// Something was assigned, or told to be nothing, and is not known to be read yet.
    assigned_anew: bool,
    /// Where those that are held shall begin, as far as that is known.
    beginnings: BTreeMap<Partition, Beginning>,
    /// Up to where each partition is counted in its tenure.
    counted: BTreeMap<Partition, (Tenure, i64)>,
    /// How far the database had counted those that are read.
    reached: BTreeMap<Partition, i64>,
    /// Of these offsets went backwards within a tenure.
    went_back: BTreeSet<Partition>,
    /// Counted, and not known to be committed in Kafka.
    owed: BTreeMap<Partition, i64>,
    /// Some of it Kafka has not been told.
    untold: bool,
    /// Some of it the client would not tell.
    refused: bool,
}

impl Group {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Grows with each event that a poll serves without a message to give. It answers "nothing there" then,
    /// whatever stands behind the event.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Acquire)
    }

    /// Begins another membership: what the one before had is nobody's, until it is assigned anew.
    pub fn membership(self: &Arc<Self>, credentials: Credentials) -> Membership {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let number = self.membership.fetch_add(1, Ordering::AcqRel) + 1;
        let mut book = self.book();
        book.assigned_anew = false;
        for partition in std::mem::take(&mut book.assigned).into_keys() {
            book.forget(&partition);
        }
        Membership { group: Arc::clone(self), number, credentials }
    }

    /// One that reads this partition.
    #[cfg(test)]
    #[must_use]
    pub fn reading(partition: &Partition) -> Self {
        let group = Self::default();
        group.book().assigned.insert(partition.clone(), None);
        group.begin(partition, Beginning { offset: 0, generation: 0, position: 0 });
        group.begin_all(|_, _| true);
        group
    }

    fn serve_one(&self) {
        self.served.fetch_add(1, Ordering::AcqRel);
    }

    #[must_use]
    pub fn tenure(&self, topic: &str, partition: i32) -> Option<Tenure> {
        self.book().assigned.get(&Partition::new(topic, partition)).copied().flatten()
    }

    /// Notes what is committed in Postgres; the reading task tells Kafka.
    pub fn counted(&self, ends: &[(&AssignedPartition, i64)]) {
        let mut book = self.book();
        for (place, next) in ends {
            let partition = place.partition();
            let Some(tenure) = place.tenure.filter(|tenure| book.assigned.get(&partition) == Some(&Some(*tenure)))
            else {
                continue;
            };
            if book.counted.get(&partition).is_some_and(|(then, before)| *then == tenure && before > next) {
                book.went_back.insert(partition.clone());
                self.doubt.notify_one();
            }
            book.counted.insert(partition.clone(), (tenure, *next));
            let reached = book.reached.entry(partition.clone()).or_default();
            *reached = (*reached).max(*next);
            book.owed.insert(partition, *next);
            book.untold = true;
        }
        drop(book);
        self.wake.notify_one();
    }

    /// Of these partitions offsets went backwards: the client has begun at the first message there is.
    #[must_use]
    pub fn take_gone_back(&self) -> BTreeSet<Partition> {
        std::mem::take(&mut self.book().went_back)
    }

    /// Gives back what could not be looked at.
    pub fn have_gone_back(&self, partitions: BTreeSet<Partition>) {
        self.book().went_back.extend(partitions);
    }

    #[must_use]
    pub fn assigned(&self) -> Vec<Partition> {
        self.book().assigned.keys().cloned().collect()
    }

    /// How far the database had counted each partition that is read.
    #[must_use]
    pub fn reached(&self) -> BTreeMap<Partition, Reached> {
        let book = self.book();
        let read = book.assigned.iter().filter_map(|(partition, tenure)| {
            let reached = Reached { generation: (*tenure)?.generation, next_offset: *book.reached.get(partition)? };
            Some((partition.clone(), reached))
        });
        read.collect()
    }

    /// As [`Group::reached`], of one partition.
    #[must_use]
    pub fn reached_of(&self, partition: &Partition) -> Option<Reached> {
        let book = self.book();
        let tenure = book.assigned.get(partition).copied().flatten()?;
        Some(Reached { generation: tenure.generation, next_offset: *book.reached.get(partition)? })
    }

    /// The generation of each partition that is read.
    #[must_use]
    pub fn generations(&self) -> BTreeMap<Partition, i64> {
        let book = self.book();
        let begun =
            book.assigned.iter().filter_map(|(partition, tenure)| Some((partition.clone(), (*tenure)?.generation)));
        begun.collect()
    }

    /// The partitions of which nobody has said yet where their reading begins.
    #[must_use]
    pub fn held(&self) -> Vec<Partition> {
        let book = self.book();
        let held = book
            .assigned
            .iter()
            .filter(|(partition, tenure)| tenure.is_none() && !book.beginnings.contains_key(*partition));
        held.map(|(partition, _)| partition.clone()).collect()
    }

    /// Ends the tenure of a partition that is read as though it were of this generation: it is another one by
    /// now. What was counted of it before is not to be told to Kafka any more.
    pub fn hold(&self, partition: &Partition, generation: i64) {
        let mut book = self.book();
        let is_read =
            book.assigned.get(partition).copied().flatten().is_some_and(|tenure| tenure.generation == generation);
        let is_to_be_read = book.beginnings.get(partition).is_some_and(|beginning| beginning.generation == generation);
        if is_read {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            book.assigned.insert(partition.clone(), None);
            book.forget(partition);
        } else if is_to_be_read {
            book.beginnings.remove(partition);
        } else {
            return;
        }
        drop(book);
        self.is_held.notify_one();
    }

    /// Says where the reading of a held partition begins; the reading task takes it there.
    pub fn begin(&self, partition: &Partition, beginning: Beginning) {
        let mut book = self.book();
        if book.assigned.get(partition) == Some(&None) {
            book.beginnings.insert(partition.clone(), beginning);
        }
        drop(book);
        self.wake.notify_one();
    }

    /// Takes each held partition to where its reading begins. Those that `go` refuses are tried again the next
    /// time; false where there are such.
    pub fn begin_all(&self, mut go: impl FnMut(&Partition, i64) -> bool) -> bool {
        let beginnings = self.book().beginnings.clone();
        let mut all = true;
        for (partition, beginning) in beginnings {
            // Not under the lock: it waits for a thread of the client.
            if !go(&partition, beginning.offset) {
                all = false;
                continue;
            }
            let mut book = self.book();
            // Unless somebody knows better meanwhile.
            if book.beginnings.get(&partition) == Some(&beginning) {
                book.beginnings.remove(&partition);
                let number = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
                book.reached.insert(partition.clone(), beginning.position);
                book.assigned.insert(partition, Some(Tenure { number, generation: beginning.generation }));
            }
        }
        all
    }

    /// Whether the reading of everything has begun that was assigned: once for each assignment.
    #[must_use]
    pub fn take_begun(&self) -> bool {
        let mut book = self.book();
        book.assigned.values().all(Option::is_some) && std::mem::take(&mut book.assigned_anew)
    }

    /// Whether it is not known of some partition where its reading begins.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.book().assigned.values().any(Option::is_none)
    }

    /// Whether a partition has a tenure.
    #[must_use]
    pub fn is_read(&self, partition: &Partition) -> bool {
        self.book().assigned.get(partition).is_some_and(Option::is_some)
    }

    /// Commits to Kafka what is owed, if there is anything it has not been told.
    pub fn commit_offsets(&self, consumer: &BaseConsumer<Membership>, mode: CommitMode) {
        let mut book = self.book();
        if !std::mem::take(&mut book.untold) || book.owed.is_empty() {
            return;
        }
        let offsets = list(&book.owed);
        // Not under the lock: a commit may block.
        drop(book);
        fail::fail_point!("consumer::before_offsets_told", |_| std::process::abort());
        if let Err(error) = consumer.commit(&offsets, mode) {
            tracing::debug!(error = %error, "offsets not committed");
            self.book().refused = true;
        }
        fail::fail_point!("consumer::offsets_told", |_| std::process::abort());
    }

    /// Makes due again what the client refused. Not as soon as it is refused: while the coordinator is
    /// away that would go round and round.
    pub fn retry_refused(&self) {
        let mut book = self.book();
        book.untold |= std::mem::take(&mut book.refused);
    }

    /// Makes everything owed due.
    pub fn retry_all(&self) {
        self.book().untold = true;
    }

    /// What Kafka has been told or is to be, and is not known to have.
    #[must_use]
    pub fn owed(&self) -> Vec<Partition> {
        self.book().owed.keys().cloned().collect()
    }

    /// Notes what Kafka has; what it has not although it was told is told again. The client reports
    /// no answer to what it is told, so this is how a refusal, in a rebalance or an outage, shows.
    pub fn stored(&self, offsets: &BTreeMap<Partition, i64>) {
        fail::fail_point!("consumer::offsets_stored", |_| std::process::abort());
        let mut book = self.book();
        book.owed.retain(|partition, next| offsets.get(partition) != Some(next));
        book.untold = !book.owed.is_empty();
        drop(book);
        self.wake.notify_one();
    }

    /// Held while counting goes on.
    #[must_use]
    pub fn counting(&self) -> DropGuard {
        self.counting_ended.clone().drop_guard()
    }

    pub async fn counting_ended(&self) {
        self.counting_ended.cancelled().await;
    }
}

impl Book {
    /// What was counted and is owed of a partition.
    fn forget(&mut self, partition: &Partition) {
        self.beginnings.remove(partition);
        self.went_back.remove(partition);
        self.owed.remove(partition);
        self.counted.remove(partition);
        self.reached.remove(partition);
    }
}

fn list(offsets: &BTreeMap<Partition, i64>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (Partition { topic, number }, next) in offsets {
        list.add_partition_offset(topic, *number, Offset::Offset(*next)).expect("an offset of a message is an offset");
    }
    list
}

fn partitions(list: &TopicPartitionList) -> impl Iterator<Item = Partition> {
    list.elements().into_iter().map(|element| Partition::new(element.topic(), element.partition()))
}

impl Membership {
    #[must_use]
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Of this process.
    #[must_use]
    pub fn is_the_first(&self) -> bool {
        self.number == 1
    }

    fn is_over(&self) -> bool {
        self.group.membership.load(Ordering::Acquire) != self.number
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if self.is_over() {
            return;
        }
        self.group.epoch.fetch_add(1, Ordering::AcqRel);
        let mut book = self.group.book();
        match rebalance {
            Rebalance::Assign(list) => {
                book.assigned.extend(partitions(list).map(|partition| (partition, None)));
                book.assigned_anew = true;
            }
            Rebalance::Revoke(list) => {
                book.assigned_anew = false;
                for partition in partitions(list) {
                    book.assigned.remove(&partition);
                    book.forget(&partition);
                }
            }
            Rebalance::Error(_) => {}
        }
        tracing::info!(partitions = book.assigned.len(), "assignment changed");
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // Kafka's own offsets may be ahead of the database: nothing is read before both are known.
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(error = %error, "kafka does not pause what was assigned");
            }
        }
        self.group.is_held.notify_one();
        self.group.serve_one();
    }

    fn commit_callback(&self, _: KafkaResult<()>, _: &TopicPartitionList) {
        self.group.serve_one();
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.group.serve_one();
        if !self.is_over() {
            self.group.failure.note(facility, message);
        }
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.group.serve_one();
        self.credentials.note(&error, reason);
        Quiet.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.group.serve_one();
        // Why the connection before failed explains nothing of what comes later.
        if !self.is_over() && self.group.fetching.note(statistics) {
            self.group.failure.forget();
        }
    }
}

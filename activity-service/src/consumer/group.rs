//! This member of the consumer group: which partitions it has, and which offsets it owes Kafka.
//!
//! An offset may be committed when every message before it is committed in Postgres. That holds for
//! what this member has read and counted without a gap since a partition was assigned to it, its
//! tenure. What was read in an earlier tenure is counted all the same, the keys make that harmless,
//! but its offset is nobody's business any more.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};
use shared::kafka::Quiet;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::batch::Place;

/// One assignment of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure(u64);

type Partition = (String, i32);

#[derive(Debug, Default)]
pub struct Group {
    /// There may be something to read from Kafka or to tell it.
    pub wake: Notify,
    book: Mutex<Book>,
    /// Grows with each change of the assignment.
    epoch: AtomicU64,
    counting_ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Book {
    assigned: BTreeMap<Partition, Tenure>,
    /// Counted, and not known to be committed in Kafka.
    owed: BTreeMap<Partition, i64>,
    /// Some of it Kafka has not been told.
    untold: bool,
    /// Some of it Kafka has been told and would not have.
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

    #[must_use]
    pub fn tenure(&self, topic: &str, partition: i32) -> Option<Tenure> {
        self.book().assigned.get(&(topic.to_owned(), partition)).copied()
    }

    /// Notes what is committed in Postgres; the reading task tells Kafka.
    pub fn counted(&self, ends: &[(&Place, i64)]) {
        let mut book = self.book();
        for (place, next) in ends {
            let partition = (place.topic.clone(), place.partition);
            if place.tenure.is_some() && book.assigned.get(&partition) == place.tenure.as_ref() {
                book.owed.insert(partition, *next);
                book.untold = true;
            }
        }
        drop(book);
        self.wake.notify_one();
    }

    /// Commits to Kafka what is owed, if there is anything it has not been told.
    pub fn tell(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
        let mut book = self.book();
        if !std::mem::take(&mut book.untold) || book.owed.is_empty() {
            return;
        }
        let offsets = list(&book.owed);
        // Not under the lock: the answer may come by a callback, which takes it.
        drop(book);
        if let Err(error) = consumer.commit(&offsets, mode) {
            tracing::debug!(error = %error, "offsets not committed");
            self.book().refused = true;
        }
    }

    /// Makes what Kafka refused due again. Not as soon as it is refused: while the coordinator is
    /// away that would go round and round.
    pub fn retry_refused(&self) {
        let mut book = self.book();
        book.untold |= std::mem::take(&mut book.refused);
    }

    /// Makes everything owed due: the answers to what was told will not be seen any more.
    pub fn retry_all(&self) {
        self.book().untold = true;
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

fn list(offsets: &BTreeMap<Partition, i64>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, partition), next) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next))
            .expect("an offset of a message is an offset");
    }
    list
}

fn partitions(list: &TopicPartitionList) -> impl Iterator<Item = Partition> {
    list.elements().into_iter().map(|element| (element.topic().to_owned(), element.partition()))
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        let mut book = self.book();
        match rebalance {
            Rebalance::Assign(list) => {
                book.assigned.extend(partitions(list).map(|partition| (partition, Tenure(epoch))))
            }
            Rebalance::Revoke(list) => {
                for partition in partitions(list) {
                    book.assigned.remove(&partition);
                    book.owed.remove(&partition);
                }
            }
            Rebalance::Error(_) => {}
        }
        tracing::info!(partitions = book.assigned.len(), "assignment changed");
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        // poll() answers "nothing there" after it served an event, whatever stands behind the event.
        self.wake.notify_one();
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut book = self.book();
        let mut refused = result.err();
        for element in offsets.elements() {
            let partition = (element.topic().to_owned(), element.partition());
            match element.error() {
                Ok(()) if refused.is_none() => {
                    if book.owed.get(&partition).copied().map(Offset::Offset) == Some(element.offset()) {
                        book.owed.remove(&partition);
                    }
                }
                Ok(()) => {}
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            // A rebalance under way, as a rule.
            tracing::debug!(error = %error, "offsets not committed");
            book.refused = true;
        }
        drop(book);
        self.wake.notify_one();
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Quiet.error(error, reason);
    }
}

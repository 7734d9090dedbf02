//! This member of the consumer group: which partitions it has, and which offsets it owes Kafka.
//!
//! An offset may be committed when every message before it is committed in Postgres. That holds for
//! what this member has read and counted without a gap since a partition was assigned to it, its
//! tenure. What was read in an earlier tenure is counted all the same, the keys make that harmless,
//! but its offset is nobody's business any more.

use std::{
    collections::{BTreeMap, BTreeSet},
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

use super::{batch::Place, positions::Jump};

/// One assignment of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure(u64);

/// Topic and number.
pub type Partition = (String, i32);

#[derive(Debug, Default)]
pub struct Group {
    /// There may be something to read from Kafka or to tell it.
    pub wake: Notify,
    /// There is something to compare with what the broker has.
    pub doubt: Notify,
    book: Mutex<Book>,
    /// Grows with each change of the assignment.
    epoch: AtomicU64,
    /// How many events were served that are no messages: logs, errors, rebalances, answers to commits.
    served: AtomicU64,
    counting_ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Book {
    assigned: BTreeMap<Partition, Tenure>,
    /// Up to where each partition is counted in its tenure.
    counted: BTreeMap<Partition, (Tenure, i64)>,
    doubts: Doubts,
    /// Counted, and not known to be committed in Kafka.
    owed: BTreeMap<Partition, i64>,
    /// Some of it Kafka has not been told.
    untold: bool,
    /// Some of it the client would not tell.
    refused: bool,
}

/// Signs that the topic does not follow what was read from it.
#[derive(Debug, Default)]
pub struct Doubts {
    pub jumps: BTreeMap<Partition, Jump>,
    /// Offsets went backwards within a tenure.
    pub went_back: BTreeSet<Partition>,
}

impl Doubts {
    fn add_jump(&mut self, partition: Partition, jump: Jump) {
        let whole = self.jumps.entry(partition).or_insert(jump);
        *whole = Jump { expected: whole.expected.min(jump.expected), came: whole.came.max(jump.came) };
    }
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

    fn serve_one(&self) {
        self.served.fetch_add(1, Ordering::AcqRel);
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
            let Some(tenure) = place.tenure.filter(|tenure| book.assigned.get(&partition) == Some(tenure)) else {
                continue;
            };
            if book.counted.get(&partition).is_some_and(|(then, before)| *then == tenure && before > next) {
                book.doubts.went_back.insert(partition.clone());
                self.doubt.notify_one();
            }
            book.counted.insert(partition.clone(), (tenure, *next));
            book.owed.insert(partition, *next);
            book.untold = true;
        }
        drop(book);
        self.wake.notify_one();
    }

    /// Notes that messages were expected which did not come.
    pub fn jumped(&self, jumps: Vec<(Partition, Jump)>) {
        if jumps.is_empty() {
            return;
        }
        let mut book = self.book();
        jumps.into_iter().for_each(|(partition, jump)| book.doubts.add_jump(partition, jump));
        drop(book);
        self.doubt.notify_one();
    }

    #[must_use]
    pub fn take_doubts(&self) -> Doubts {
        std::mem::take(&mut self.book().doubts)
    }

    /// Gives back what could not be looked at.
    pub fn doubt_again(&self, doubts: Doubts) {
        let mut book = self.book();
        doubts.jumps.into_iter().for_each(|(partition, jump)| book.doubts.add_jump(partition, jump));
        book.doubts.went_back.extend(doubts.went_back);
    }

    #[must_use]
    pub fn assigned(&self) -> Vec<Partition> {
        self.book().assigned.keys().cloned().collect()
    }

    /// What is to be read next of the partitions of which something was counted in their present tenure.
    #[must_use]
    pub fn counted_up_to(&self) -> BTreeMap<Partition, i64> {
        let book = self.book();
        let present =
            book.counted.iter().filter(|(partition, (tenure, _))| book.assigned.get(*partition) == Some(tenure));
        present.map(|(partition, (_, next))| (partition.clone(), *next)).collect()
    }

    /// Forgets what was counted of the topic that a partition belonged to before, and the doubts that
    /// the difference has caused meanwhile.
    pub fn begins_anew(&self, partition: &Partition, high: i64) {
        let mut book = self.book();
        book.doubts.went_back.remove(partition);
        if book.counted.get(partition).is_some_and(|(_, next)| *next > high) {
            book.counted.remove(partition);
        }
    }

    /// Commits to Kafka what is owed, if there is anything it has not been told.
    pub fn tell(&self, consumer: &BaseConsumer<Self>, mode: CommitMode) {
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
                    book.counted.remove(&partition);
                }
            }
            Rebalance::Error(_) => {}
        }
        tracing::info!(partitions = book.assigned.len(), "assignment changed");
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // One that was paused when it was taken away comes back paused, and nobody would know.
            if let Err(error) = consumer.resume(list) {
                tracing::warn!(error = %error, "kafka does not resume what was assigned");
            }
        }
        self.doubt.notify_one();
        self.serve_one();
    }

    fn commit_callback(&self, _: KafkaResult<()>, _: &TopicPartitionList) {
        self.serve_one();
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.serve_one();
        Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.serve_one();
        Quiet.error(error, reason);
    }

    fn stats_raw(&self, _: &[u8]) {
        self.serve_one();
    }
}

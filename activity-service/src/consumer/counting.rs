//! The counting task: one transaction per batch, repeated until it is committed.
//!
//! Whatever happens to a transaction, the cure is the same batch again, for the keys drop what was
//! counted after all. Only a batch whose data Postgres refuses is taken apart, to find the guilty
//! message; an outage never sends a message into quarantine, nor does a database that refuses good ones too.
//! A batch that is too slow is halved.

mod attempt;

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use attempt::{Done, count_in};
use shared::runtime::{
    at_once::AtOnce,
    backoff::backoff,
    database::{Failure, Pool},
    health::TaskStatus,
    lifecycle::Shutdown,
};
use tokio::sync::mpsc;

use super::{
    Settings,
    batch::Batch,
    continuity,
    group::Group,
    lag::{InHand, seconds_since},
};
use crate::{
    key,
    metrics::{ATTEMPTS_FAILED, BATCH_DURATION, BATCH_SIZE, COUNT_DELAY, COUNTED, DUPLICATES, KEPT, count_activities},
    quarantine::Room,
    rejection::Reason,
    trial,
};

/// Longer than any statement may take: the connection leads nowhere.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(15);
/// After this long it is asked whether the server is still at a COMMIT. Where it is, its answer is waited for: it ends
/// by no time-out while a synchronous standby is away, and the same batch again would only wait for its locks.
const COMMIT_WITHIN: Duration = Duration::from_secs(3);

/// What became of the messages of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub counted: u64,
    pub duplicates: u64,
    /// Put into quarantine; those that were there already are left out.
    pub quarantined: u64,
}

#[derive(Debug)]
pub struct Counting {
    pub pool: Pool,
    pub time_zone: String,
    pub settings: Settings,
    pub group: Arc<Group>,
    pub shutdown: Shutdown,
    pub in_hand: InHand,
    pub status: TaskStatus,
    pub at_once: AtOnce,
    pub room: Room,
}

impl Settings {
    /// The pauses between attempts while the database is out of reach.
    fn backoff(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        backoff(self.backoff_initial, self.backoff_max)
    }
}

/// Counts what is read until reading ends, or until the database is away while the service stops.
///
/// # Errors
/// None.
pub async fn run(counting: Counting, mut batches: mpsc::Receiver<Batch>) -> anyhow::Result<()> {
    let _counting = counting.group.counting();
    while let Some(mut batch) = batches.recv().await {
        let begin = Instant::now();
        counting.in_hand.note(batch.oldest());
        if counting.count_batch(&mut batch).await.is_none() {
            break;
        }
        counting.in_hand.note(None);
        counting.group.fetching.counted(&batch.counts(0..batch.messages.len()));
        // What has come meanwhile goes next.
        counting.group.wake.notify_one();
        batch.trace();
        BATCH_SIZE.record_count(batch.messages.len());
        BATCH_DURATION.record(begin.elapsed().as_secs_f64());
        if let Some(oldest) = batch.oldest() {
            COUNT_DELAY.record(seconds_since(oldest));
        }
    }
    Ok(())
}

impl Counting {
    /// Counts a batch whole, in as many parts as it takes. None where the service stops before that
    /// is possible; Kafka still has what is left.
    pub async fn count_batch(&self, batch: &mut Batch) -> Option<Counted> {
        let mut sum = Counted::default();
        let mut pauses = self.settings.backoff();
        // The next part last. Parts are never reordered: an offset says that all before is done.
        let mut parts: Vec<_> = std::iter::once(0..batch.messages.len()).collect();
        while let Some(part) = parts.pop() {
            let at_once = self.at_once.get();
            if part.len() > at_once {
                let middle = part.start + at_once;
                parts.extend([middle..part.end, part.start..middle]);
                continue;
            }
            if part.len() > 1 && batch.days(&part).len() > key::DAYS_AT_ONCE {
                parts.extend(halves(&part));
                continue;
            }
            let error = match self.count_part(batch, &part).await {
                Ok(done) => {
                    fail::fail_point!("consumer::after_commit", |_| std::process::abort());
                    self.group.counted(&batch.ends(&part));
                    fail::fail_point!("consumer::offsets_noted", |_| std::process::abort());
                    self.status.ok();
                    self.at_once.was_quick_enough(part.len());
                    pauses = self.settings.backoff();
                    sum.add(done);
                    continue;
                }
                Err(error) => error,
            };
            let is_slow = is_slow(&error);
            ATTEMPTS_FAILED.add_of(if is_slow { "slow" } else { label(Failure::of(&error)) }, 1);
            match Failure::of(&error) {
                Failure::Conflict => parts.push(part),
                Failure::Outage if is_slow && part.len() > 1 => {
                    tracing::warn!(messages = part.len(), error = %error, "a batch is too slow and is halved");
                    self.at_once.was_too_slow(part.len());
                    parts.extend(halves(&part));
                }
                Failure::Refused if part.len() > 1 => parts.extend(halves(&part)),
                Failure::Refused if self.is_to_blame(batch, &part).await && batch.reject(part.start, &error) => {
                    parts.push(part)
                }
                failure @ (Failure::Outage | Failure::Defect | Failure::Refused) => {
                    self.log_once(failure, &error);
                    parts.push(part);
                    let pause = tokio::time::sleep(pauses.next().unwrap_or_default());
                    if self.shutdown.is_draining() || self.shutdown.unless_draining(pause).await.is_none() {
                        return None;
                    }
                }
            }
        }
        tracing::debug!(
            counted = sum.counted,
            duplicates = sum.duplicates,
            quarantined = sum.quarantined,
            "batch counted"
        );
        Some(sum)
    }

    /// Whether a good message in the place of the only one in `part` would be counted at this moment.
    async fn is_to_blame(&self, batch: &Batch, part: &Range<usize>) -> bool {
        let suspect = batch.messages[part.start].parsed.as_ref().ok().map(|activity| activity.message_ref);
        let positions = batch.positions(part);
        let trial = trial::count_a_good_one(&self.pool, &self.time_zone, suspect, &positions);
        self.status.busy(ATTEMPT_WITHIN, trial).await.is_ok()
    }

    /// One attempt at a part of a batch, in one transaction.
    ///
    /// # Errors
    /// As Postgres answers. Nobody knows then whether it is committed.
    pub async fn count_part(&self, batch: &Batch, part: &Range<usize>) -> Result<Counted, sqlx::Error> {
        let partitions: BTreeSet<_> = batch.starts(part).into_iter().map(|(place, _)| place.partition()).collect();
        loop {
            // Before the transaction sees how far the database is: that only grows.
            let reached =
                partitions.iter().filter_map(|one| Some((one.clone(), self.group.reached_of(one)?))).collect();
            let transaction = self.pool.begin().await?;
            let attempt = count_in(transaction, batch, part, &self.time_zone, &self.room, &reached);
            let counting = self.status.busy(ATTEMPT_WITHIN, attempt).await?;
            // Where keys were purged meanwhile the same again, under the new horizon.
            let Some((transaction, done)) = counting else { continue };
            let backend = transaction.backend();
            self.pool.until_answered(&self.status, COMMIT_WITHIN, backend, transaction.commit()).await?;
            return Ok(self.committed(done));
        }
    }

    /// What is committed.
    fn committed(&self, done: Done) -> Counted {
        let Done { figures, duplicates, kept, has_jumps, outdated, lost } = done;
        if has_jumps {
            self.group.doubt.notify_one();
        }
        lost.iter().for_each(|(partition, reached)| continuity::have_lost(partition, *reached));
        for (partition, generation) in outdated {
            self.group.hold(&partition, generation);
        }
        let counted = figures.values().sum();
        COUNTED.add(counted);
        count_activities(&figures);
        DUPLICATES.add(duplicates);
        if let Some(messages) = kept.get(&Reason::ConflictingCopy) {
            tracing::warn!(messages, "messages have the references of other activities");
        }
        kept.iter().for_each(|(reason, messages)| KEPT.add_of(reason.as_str(), *messages));
        Counted { counted, duplicates, quarantined: kept.values().sum() }
    }

    /// Once when it begins, not with each attempt.
    fn log_once(&self, failure: Failure, error: &sqlx::Error) {
        let news = self.status.waiting(error);
        match failure {
            _ if !news => {}
            Failure::Outage | Failure::Conflict => {
                tracing::warn!(error = %error, "counting waits for the database")
            }
            Failure::Refused | Failure::Defect => {
                tracing::error!(error = %error, "counting is refused by the database")
            }
        }
    }
}

impl Counted {
    fn add(&mut self, other: Self) {
        self.counted += other.counted;
        self.duplicates += other.duplicates;
        self.quarantined += other.quarantined;
    }
}

/// Under which a failed attempt is counted.
fn label(failure: Failure) -> &'static str {
    match failure {
        Failure::Outage => "outage",
        Failure::Conflict => "conflict",
        Failure::Refused => "refused",
        Failure::Defect => "defect",
    }
}

/// The halves of a part that has two messages or more; the one to be counted first stands last.
fn halves(part: &Range<usize>) -> [Range<usize>; 2] {
    let middle = part.start + part.len() / 2;
    [middle..part.end, part.start..middle]
}

/// Whether a statement took longer than it may, or the whole attempt did: fewer messages take less. The server
/// may be too slow for a single one too, which is an outage: no message is slow.
fn is_slow(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
        error => error.as_database_error().is_some_and(|answer| answer.code().as_deref() == Some("57014")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn however_often_parts_are_refused_each_message_has_its_turn_once_and_in_order(
            length in 1usize..300,
            refused in proptest::collection::vec(any::<bool>(), 600),
        ) {
            let mut refusals = refused.into_iter();
            let (mut parts, mut turns) = (std::iter::once(0..length).collect::<Vec<_>>(), Vec::new());
            while let Some(part) = parts.pop() {
                if part.len() > 1 && refusals.next().unwrap_or(false) {
                    parts.extend(halves(&part));
                } else {
                    turns.extend(part);
                }
            }
            prop_assert_eq!(turns, (0..length).collect::<Vec<_>>());
        }
    }
}

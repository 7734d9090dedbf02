//! The counting task: one transaction per batch, repeated until it is committed.
//!
//! Whatever happens to a transaction, the cure is the same batch again, for the keys drop what was
//! counted after all. Only a batch whose data Postgres refuses is taken apart, to find the guilty
//! message; an outage never sends a message into quarantine, nor does a database that refuses good ones too.
//! A batch that is too slow is halved.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    at_once::AtOnce,
    backoff::backoff,
    database::{Failure, Pool, Transaction},
    health::TaskStatus,
    lifecycle::Shutdown,
};
use sqlx::PgConnection;
use time::Date;
use tokio::sync::mpsc;

use super::{
    Settings,
    batch::Batch,
    group::Group,
    kept::{place, to_keep},
    lag::{InHand, seconds_since},
    positions::{self, Position},
};
use crate::{
    activity::Received,
    admission::Admission,
    gaps,
    key::{self, redelivered},
    metrics::{ATTEMPTS_FAILED, BATCH_DURATION, BATCH_SIZE, COUNT_DELAY, COUNTED, DUPLICATES, KEPT, count_activities},
    place::{Partition, TopicPlace},
    quarantine::{self, Again, Known, Room},
    rejection::{Reason, Rejected},
    statistics::{self, Figures, Outcome},
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

/// What a transaction has done once it is committed.
struct Done {
    figures: Figures,
    duplicates: u64,
    kept: BTreeMap<Reason, u64>,
    /// Whether offsets were passed unread.
    has_jumps: bool,
    /// Partitions that turned out to be others.
    outdated: Vec<(Partition, i64)>,
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
        counting.group.fetching.counted(batch.messages.len());
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
            if part.len() > 1 && days(batch, &part).len() > key::DAYS_AT_ONCE {
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
                Failure::Refused if self.is_to_blame(batch, &part).await && reject(batch, part.start, &error) => {
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
        loop {
            let transaction = self.pool.begin().await?;
            let counting = self.status.busy(ATTEMPT_WITHIN, self.count_in(transaction, batch, part)).await?;
            // Where keys were purged meanwhile the same again, under the new horizon.
            let Some((transaction, done)) = counting else { continue };
            let backend = transaction.backend();
            self.pool.until_answered(&self.status, COMMIT_WITHIN, backend, transaction.commit()).await?;
            return Ok(self.committed(done));
        }
    }

    /// Everything but the COMMIT. None where it was rolled back because keys were purged meanwhile.
    async fn count_in(
        &self,
        mut transaction: Transaction,
        batch: &Batch,
        part: &Range<usize>,
    ) -> Result<Option<(Transaction, Done)>, sqlx::Error> {
        fail::fail_point!("consumer::begun", |how| Err(shared::failpoint::kill_or_fail(how)));
        let messages = &batch.messages[part.clone()];
        let admission = Admission::open(&mut transaction, &self.time_zone).await?;
        let identities = if admission.quarantine_is_empty() {
            Vec::new()
        } else {
            messages.iter().map(|message| batch.identities(message)).collect()
        };
        let known = Known::look_for(&mut transaction, &identities).await?;
        let with_original =
            messages.iter().enumerate().map(|(index, message)| (message, known.original(identities.get(index))));
        let (again, new): (Vec<_>, Vec<_>) = with_original.partition(|(_, original)| original.is_some());
        let activities = new.iter().flat_map(|(message, _)| message.parsed.as_ref());
        let judge = admission.look_at(&mut transaction, activities).await?;
        fail::fail_point!("consumer::admitted", |how| Err(shared::failpoint::kill_or_fail(how)));
        let again = again.into_iter().filter_map(|(message, original)| {
            Some(Again { original: original?.clone(), place: place(batch, message) })
        });
        let again: Vec<_> = again.collect();
        let (mut received, mut kept) = (Vec::with_capacity(part.len()), Vec::new());
        for (message, _) in new {
            match judge.judge(&message.parsed) {
                Ok(activity) => {
                    let TopicPlace { topic, partition, offset } = place(batch, message);
                    received.push(Received { activity, topic, partition, offset });
                }
                Err(why) => kept.push(to_keep(batch, message, why)),
            }
        }
        let all = received.len() as u64;
        let before = positions::of_batch(&mut transaction, batch, part).await?;
        let jumps = positions::jumps(&before, batch, part);
        leave_out_redelivered(&mut transaction, &mut received, &before).await?;
        let after = batch.positions(part);
        let Outcome { counted: figures, oldest_counted, conflicting } =
            statistics::count(&mut transaction, &self.time_zone, &received, &after).await?;
        let counted = figures.values().sum::<u64>();
        gaps::note(&mut transaction, &jumps, gaps::GapState::Unchecked).await?;
        fail::fail_point!("consumer::counted", |how| Err(shared::failpoint::kill_or_fail(how)));
        let duplicates = all - counted - conflicting.len() as u64;
        if !conflicting.is_empty() {
            // Few, as long as senders keep their promise.
            let places: HashSet<_> = conflicting.iter().map(|index| received[*index].place()).collect();
            for message in &batch.messages[part.clone()] {
                if let Some(activity) = message.parsed.as_ref().ok().filter(|_| places.contains(&place(batch, message)))
                {
                    kept.push(to_keep(batch, message, Cow::Owned(activity.conflicting())));
                }
            }
        }
        let kept = quarantine::keep(&mut transaction, kept, again, &self.room).await?;
        fail::fail_point!("consumer::kept", |how| Err(shared::failpoint::kill_or_fail(how)));
        if !judge.still_holds(&mut transaction, oldest_counted).await? {
            transaction.rollback().await?;
            return Ok(None);
        }
        fail::fail_point!("consumer::before_commit", |how| Err(shared::failpoint::kill_or_fail(how)));
        let outdated = outdated(&before, &after);
        Ok(Some((transaction, Done { figures, duplicates, kept, has_jumps: !jumps.is_empty(), outdated })))
    }

    /// What is committed.
    fn committed(&self, done: Done) -> Counted {
        let Done { figures, duplicates, kept, has_jumps, outdated } = done;
        if has_jumps {
            self.group.doubt.notify_one();
        }
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

/// Marks a message that Postgres refuses even alone. False where it was marked before: then not the
/// message is to blame.
fn reject(batch: &mut Batch, index: usize, error: &sqlx::Error) -> bool {
    let message = &mut batch.messages[index];
    let (code, message_ref) = match &message.parsed {
        Ok(activity) => (Some(activity.code.clone()), Some(activity.message_ref)),
        Err(rejected) if rejected.reason == Reason::NotStorable => return false,
        Err(rejected) => (rejected.code.clone(), rejected.message_ref),
    };
    let rejected = Rejected { code, message_ref, ..Rejected::by_the_database(error) };
    tracing::warn!(offset = message.offset, detail = %rejected.detail, "the database refuses a message");
    message.parsed = Err(rejected);
    true
}

/// The days that the keys of a part belong to.
fn days(batch: &Batch, part: &Range<usize>) -> BTreeSet<Date> {
    let activities = batch.messages[part.clone()].iter().flat_map(|message| message.parsed.as_ref());
    key::days(activities.map(|activity| activity.message_ref))
}

/// Leaves out those that are found counted from where they stand. Only those are looked for of which the
/// position says that they come again: what is new costs nothing.
async fn leave_out_redelivered(
    transaction: &mut PgConnection,
    received: &mut Vec<Received<'_>>,
    positions: &BTreeMap<Partition, Position>,
) -> Result<(), sqlx::Error> {
    let expected_of = |one: &Received<'_>| {
        let mut all = positions.iter().filter(|(read, _)| read.number == one.partition && read.topic == one.topic);
        all.next().map(|(_, position)| position.next_offset)
    };
    let is_again = |index: &usize| expected_of(&received[*index]).is_some_and(|next| received[*index].offset < next);
    let again: Vec<usize> = (0..received.len()).filter(is_again).collect();
    let found = redelivered::counted_before(transaction, received, again.into_iter()).await?;
    let mut index = 0..;
    received.retain(|_| index.next().is_some_and(|index| !found.contains(&index)));
    Ok(())
}

/// The partitions that turned out to be others while this was on its way: it has moved no position of theirs,
/// and where reading goes on is to be decided anew.
fn outdated(before: &BTreeMap<Partition, Position>, after: &[statistics::PositionAfter<'_>]) -> Vec<(Partition, i64)> {
    let read = after.iter().map(|one| (Partition::new(one.topic, one.partition), one.generation));
    let is_outdated = |(partition, generation): &(Partition, i64)| {
        before.get(partition).is_some_and(|position| position.generation != *generation)
    };
    read.filter(is_outdated).collect()
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

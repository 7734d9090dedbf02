//! One attempt at a part of a batch: everything of its transaction but the COMMIT.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use shared::runtime::database::Transaction;
use sqlx::PgConnection;

use crate::{
    activity::Received,
    admission::Admission,
    consumer::{
        batch::Batch,
        group::Reached,
        kept::{place, to_keep},
        positions::{self, Position},
    },
    gaps,
    key::redelivered,
    place::{Partition, TopicPlace},
    quarantine::{self, Again, Known, Room},
    rejection::Reason,
    statistics::{self, Figures, Outcome},
};

/// What a transaction has done once it is committed.
pub(super) struct Done {
    pub(super) figures: Figures,
    pub(super) duplicates: u64,
    pub(super) kept: BTreeMap<Reason, u64>,
    /// Whether offsets were passed unread.
    pub(super) has_jumps: bool,
    /// Partitions that turned out to be others.
    pub(super) outdated: Vec<(Partition, i64)>,
    /// Partitions of which the database has lost what it had counted.
    pub(super) lost: Vec<(Partition, Reached)>,
}

/// Everything but the COMMIT. None where it was rolled back because keys were purged meanwhile.
pub(super) async fn count_in(
    mut transaction: Transaction,
    batch: &Batch,
    part: &Range<usize>,
    time_zone: &str,
    room: &Room,
    reached: &BTreeMap<Partition, Reached>,
) -> Result<Option<(Transaction, Done)>, sqlx::Error> {
    fail::fail_point!("consumer::begun", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
    let messages = &batch.messages[part.clone()];
    let admission = Admission::open(&mut transaction, time_zone).await?;
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
    fail::fail_point!("consumer::admitted", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
    let again = again
        .into_iter()
        .filter_map(|(message, original)| Some(Again { original: original?.clone(), place: place(batch, message) }));
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
    let mut before = positions::of_batch(&mut transaction, batch, part).await?;
    let lost = lost(&mut transaction, &before, reached).await?;
    if !lost.is_empty() {
        before = positions::of_batch(&mut transaction, batch, part).await?;
    }
    let jumps = positions::jumps(&before, batch, part);
    leave_out_redelivered(&mut transaction, &mut received, &before).await?;
    let after = batch.positions(part);
    let Outcome { counted: figures, oldest_counted, conflicting } =
        statistics::count(&mut transaction, time_zone, &received, &after).await?;
    let counted = figures.values().sum::<u64>();
    gaps::note(&mut transaction, &jumps, gaps::GapState::Unchecked).await?;
    fail::fail_point!("consumer::counted", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
    let duplicates = all - counted - conflicting.len() as u64;
    if !conflicting.is_empty() {
        // Few, as long as senders keep their promise.
        let places: HashSet<_> = conflicting.iter().map(|index| received[*index].place()).collect();
        for message in &batch.messages[part.clone()] {
            if let Some(activity) = message.parsed.as_ref().ok().filter(|_| places.contains(&place(batch, message))) {
                kept.push(to_keep(batch, message, Cow::Owned(activity.conflicting())));
            }
        }
    }
    let kept = quarantine::keep(&mut transaction, kept, again, room).await?;
    fail::fail_point!("consumer::kept", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
    if !judge.still_holds(&mut transaction, oldest_counted).await? {
        transaction.rollback().await?;
        return Ok(None);
    }
    fail::fail_point!("consumer::before_commit", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
    let outdated = outdated(&before, &after);
    Ok(Some((transaction, Done { figures, duplicates, kept, has_jumps: !jumps.is_empty(), outdated, lost })))
}

/// Notes of which partitions the database has lost what it had counted: this part would jump over that.
async fn lost(
    transaction: &mut PgConnection,
    positions: &BTreeMap<Partition, Position>,
    reached: &BTreeMap<Partition, Reached>,
) -> Result<Vec<(Partition, Reached)>, sqlx::Error> {
    let mut lost = Vec::new();
    for (partition, reached) in reached.iter().filter(|(partition, one)| one.is_lost_by(positions.get(*partition))) {
        if positions::are_lost(&mut *transaction, partition, *reached).await? {
            lost.push((partition.clone(), *reached));
        }
    }
    Ok(lost)
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

//! A log: the messages that one identity wrote, each at a place of its own.
//!
//! While the identity lives, its process sends the log, see [`own`]. Once the identity has ended, one
//! other identity at a time does, see [`adopted`]. Nothing in the log says what was sent: that is told
//! beside it, and here is what its sender knows of that.

pub mod adopted;
mod back;
pub mod own;
mod places;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use back::Back;
use places::Settled;
use tokio::time::Instant;

use crate::{instance_id::InstanceId, tables::SettledTo};

/// After this long the last word on a log is stated again: a day of acknowledgements stays for two at least.
const STATED_FOR: Duration = Duration::from_hours(12);

/// What the sender of a log knows of it.
#[derive(Debug)]
pub struct Log {
    pub id: InstanceId,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    settled: Settled,
    /// The highest place of which an acknowledgement was stated.
    highest: i64,
    stated: Option<(i64, Instant)>,
    /// The server may have lost what was stated to it.
    is_doubted: bool,
    /// Acknowledgements by which places are settled, and which are not committed yet.
    uncommitted: usize,
    /// Places to be read by themselves, the soonest first. The messages are in no memory meanwhile.
    apart: BinaryHeap<Reverse<(Instant, i64)>>,
    /// Places that wait for their partition of the topic. The messages are in no memory meanwhile.
    back: Back,
}

impl Log {
    /// A log that is settled up to `settled_to`.
    #[must_use]
    pub fn new(id: InstanceId, settled_to: i64, highest: i64) -> Self {
        let known = Known {
            settled: Settled::new(settled_to),
            highest,
            stated: Some((settled_to, Instant::now())),
            is_doubted: false,
            uncommitted: 0,
            apart: BinaryHeap::new(),
            back: Back::default(),
        };
        Self { id, known: Mutex::new(known) }
    }

    /// These places need nothing more: published, failed, or known not to have been committed.
    pub fn settle(&self, seqs: impl IntoIterator<Item = i64>) {
        let mut known = self.known();
        seqs.into_iter().for_each(|seq| known.settled.insert(seq, seq));
    }

    /// As [`Log::settle`], by acknowledgements that are to be committed: [`Log::committed`] says when they are.
    pub fn settle_uncommitted(&self, seqs: &[i64]) {
        self.known().uncommitted += seqs.len();
        self.settle(seqs.iter().copied());
    }

    /// So many acknowledgements are committed.
    pub fn committed(&self, count: usize) {
        self.known().uncommitted -= count;
    }

    /// Everything up to this place is settled, and the tables know it.
    #[must_use]
    pub fn is_settled_for_good(&self, to: i64) -> bool {
        let known = self.known();
        known.settled.to() >= to && known.uncommitted == 0
    }

    /// As [`Log::settle`], of all from `first` to `last`.
    pub fn settle_range(&self, first: i64, last: i64) {
        if first <= last {
            self.known().settled.insert(first, last);
        }
    }

    /// Everything up to this place is settled.
    #[must_use]
    pub fn settled_to(&self) -> i64 {
        self.known().settled.to()
    }

    /// The last word on this log, to be stated with acknowledgements up to `highest`. None where the server
    /// may have lost what was stated before: nobody states then that it is settled.
    #[must_use]
    pub fn last_word(&self, highest: Option<i64>) -> Option<SettledTo> {
        let mut known = self.known();
        known.highest = known.highest.max(highest.unwrap_or(-1));
        let word = SettledTo { log: self.id, to: known.settled.to(), highest: known.highest.max(0) };
        (!known.is_doubted && word.to >= 0).then_some(word)
    }

    /// As [`Log::last_word`], if it differs from what was stated last, or that is long ago: acknowledgements leave
    /// with their day, and the last word of a log that is idle would go with them.
    #[must_use]
    pub fn unstated_word(&self) -> Option<SettledTo> {
        let stated = self.known().stated.filter(|(_, at)| at.elapsed() < STATED_FOR).map(|(to, _)| to);
        self.last_word(None).filter(|word| stated != Some(word.to))
    }

    /// The word is committed.
    pub fn stated(&self, word: SettledTo) {
        self.known().stated = Some((word.to, Instant::now()));
    }

    /// The server has lost its last transactions: what was stated may be among them.
    pub fn doubt(&self) {
        self.known().is_doubted = true;
    }

    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.known().is_doubted
    }

    /// This place is to be read by itself, from `at` on.
    pub fn read_apart(&self, seq: i64, at: Instant) {
        self.known().apart.push(Reverse((at, seq)));
    }

    /// Places whose time to be read by themselves has come, at most `max`.
    #[must_use]
    pub fn due_apart(&self, now: Instant, max: usize) -> Vec<i64> {
        let mut known = self.known();
        let mut due = Vec::new();
        while due.len() < max
            && let Some(Reverse((_, seq))) = known.apart.peek().filter(|Reverse((at, _))| *at <= now)
        {
            due.push(*seq);
            known.apart.pop();
        }
        due
    }

    /// When the next place is to be read by itself.
    #[must_use]
    pub fn next_apart(&self) -> Option<Instant> {
        self.known().apart.peek().map(|Reverse((at, _))| *at)
    }

    /// This place is to be read by itself once `partition` takes messages again. False where too many wait so.
    #[must_use]
    pub fn set_back(&self, seq: i64, partition: i32) -> bool {
        self.known().back.insert(partition, seq)
    }

    /// Whether places wait for a partition that takes messages.
    #[must_use]
    pub fn has_back(&self, is_open: impl Fn(i32) -> bool) -> bool {
        self.known().back.has_open(is_open)
    }

    /// Places whose partition takes messages, at most `max`.
    #[must_use]
    pub fn take_back(&self, is_open: impl Fn(i32) -> bool, max: usize) -> Vec<i64> {
        self.known().back.take(is_open, max)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics with the lock in hand")
    }
}

//! The log of the identity that this process has now.
//!
//! A place is drawn before the row is written. With a slot of the queue in hand the message goes into the
//! queue once it is committed, and no row is ever read. The first one that finds no slot puts the log
//! *behind*: from that place on no message gets a slot, and one cursor reads the log in order as room
//! comes, until it has caught up. So of every place it is clear who takes it into memory: below the cursor
//! all were taken, from the cursor on none.
//!
//! The cursor does not wait for placements that are under way: one of unknown outcome would stop all. A page
//! leaves out what is under way when its reading begins, seen or not, and moves the cursor past it at that
//! moment. What commits behind the cursor is then read by itself. A fresh row that came out of a page and
//! out of its own placement would be sent twice.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{sync::Notify, time::Instant};

use super::Log;
use crate::{instance::InstanceId, metrics::OVERFLOWED, queue::Slot};

/// A log and what is drawn from it.
#[derive(Debug)]
pub struct OwnLog {
    pub log: Arc<Log>,
    draws: Mutex<Draws>,
    behind: Notify,
}

#[derive(Debug, Default)]
struct Draws {
    next: i64,
    /// Where the log is behind: everything below was taken into memory.
    cursor: Option<i64>,
    /// Places without a slot whose outcome is not known yet.
    under_way: BTreeSet<i64>,
}

/// A place in the log for a message that is about to be written.
#[derive(Debug)]
pub struct Ticket {
    pub log: Arc<OwnLog>,
    pub seq: i64,
    slot: Option<Slot>,
}

/// A part of the log that is to be read.
#[derive(Debug)]
pub struct Page {
    pub from: i64,
    pub before: i64,
    /// What was under way when the reading began.
    without: BTreeSet<i64>,
}

impl OwnLog {
    #[must_use]
    pub fn new(id: InstanceId) -> Arc<Self> {
        let log = Arc::new(Log::new(id, -1, -1));
        Arc::new(Self { log, draws: Mutex::default(), behind: Notify::new() })
    }

    /// Draws the next place. The slot is of no use where the log is behind.
    #[must_use]
    pub fn draw(self: &Arc<Self>, slot: Option<Slot>) -> Ticket {
        let mut draws = self.draws();
        let seq = draws.next;
        draws.next += 1;
        let slot = slot.filter(|_| draws.cursor.is_none());
        if slot.is_none() {
            OVERFLOWED.add(1);
            draws.under_way.insert(seq);
            draws.cursor.get_or_insert(seq);
        }
        Ticket { log: Arc::clone(self), seq, slot }
    }

    /// The next page of at most `max` places, where the log is behind. None when it has caught up.
    #[must_use]
    pub fn next_page(&self, max: usize) -> Option<Page> {
        let mut draws = self.draws();
        let from = draws.cursor?;
        if from == draws.next {
            draws.cursor = None;
            return None;
        }
        let before = draws.next.min(from.saturating_add(i64::try_from(max).unwrap_or(i64::MAX)));
        draws.cursor = Some(before);
        Some(Page { from, before, without: draws.under_way.range(from..before).copied().collect() })
    }

    /// Whether something is to be read.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.draws().cursor.is_some()
    }

    /// Until there is something to be read.
    pub async fn behind(&self) {
        self.behind.notified().await;
    }

    fn draws(&self) -> MutexGuard<'_, Draws> {
        self.draws.lock().expect("nothing panics with the lock in hand")
    }
}

impl Page {
    /// Whether the page takes this place into memory.
    #[must_use]
    pub fn takes(&self, seq: i64) -> bool {
        !self.without.contains(&seq)
    }
}

impl Ticket {
    /// The message is committed at this place. With a slot it is to go into the queue; without one it is
    /// read when its turn comes.
    #[must_use]
    pub fn committed(self) -> Option<Slot> {
        if self.slot.is_some() {
            return self.slot;
        }
        let mut draws = self.log.draws();
        draws.under_way.remove(&self.seq);
        if draws.cursor.is_none_or(|cursor| self.seq < cursor) {
            self.log.log.read_apart(self.seq, Instant::now());
        }
        drop(draws);
        self.log.behind.notify_one();
        None
    }

    /// Nothing is at this place, nor ever will be.
    pub fn absent(self) {
        self.log.draws().under_way.remove(&self.seq);
        self.log.log.settle([self.seq]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::slots;

    /// The places that a page takes.
    fn taken(page: &Page) -> Vec<i64> {
        (page.from..page.before).filter(|seq| page.takes(*seq)).collect()
    }

    #[test]
    fn with_a_slot_the_message_goes_into_the_queue() {
        let log = OwnLog::new(1.into());
        let mut slots = slots(1);
        assert!(log.draw(slots.pop()).committed().is_some());
        assert!(log.next_page(10).is_none());
    }

    #[test]
    fn from_the_first_one_without_a_slot_on_all_are_read_in_order() {
        let log = OwnLog::new(1.into());
        let mut slots = slots(2);
        let first = log.draw(None);
        let second = log.draw(slots.pop());
        assert!(first.committed().is_none() && second.committed().is_none(), "a slot is no way past what waits");
        assert_eq!(taken(&log.next_page(1).unwrap()), [0]);
        let third = log.draw(slots.pop());
        assert!(third.committed().is_none());
        assert_eq!(taken(&log.next_page(10).unwrap()), [1, 2]);
        assert!(log.next_page(10).is_none(), "caught up");
        let mut slots = crate::queue::slots(1);
        assert!(log.draw(slots.pop()).committed().is_some());
    }

    #[test]
    fn what_commits_behind_the_cursor_is_read_by_itself() {
        let log = OwnLog::new(1.into());
        let (slow, quick) = (log.draw(None), log.draw(None));
        assert!(quick.committed().is_none());
        let page = log.next_page(10).unwrap();
        assert_eq!(taken(&page), [1], "the outcome of the first is not known");
        assert!(log.next_page(10).is_none(), "nobody waits for it");
        assert!(log.log.due_apart(Instant::now(), 10).is_empty());
        assert!(slow.committed().is_none());
        assert_eq!(log.log.due_apart(Instant::now(), 10), [0]);
    }

    #[test]
    fn what_is_not_there_is_settled() {
        let log = OwnLog::new(1.into());
        let (first, second) = (log.draw(None), log.draw(None));
        second.absent();
        assert_eq!(log.log.settled_to(), -1);
        first.absent();
        assert_eq!(log.log.settled_to(), 1);
    }
}

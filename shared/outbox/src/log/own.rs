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
//!
//! How far the log is settled in time follows from *moments*: what the database's clock was, and which place was
//! drawn next when the answer came. Whatever is drawn later gets a time of that moment or later, whichever way
//! the clock goes meanwhile: the statement is told it. So once every place drawn before is settled,
//! everything of an earlier time is.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{sync::Notify, time::Instant};

/// Moments that are remembered: a quarter of an hour of them. Of more, some between the oldest and the newest are
/// forgotten, and the log is said to be settled in larger steps.
const MOMENTS: usize = 1000;

use super::Log;
use crate::{instance_id::InstanceId, metrics::OVERFLOWED, slot::Slot};

/// A log and what is drawn from it.
#[derive(Debug)]
pub struct OwnLog {
    pub log: Arc<Log>,
    draws: Mutex<Draws>,
    behind: Notify,
}

#[derive(Debug)]
struct Draws {
    next: i64,
    /// No message that is drawn from now on has an earlier time.
    not_before: OffsetDateTime,
    /// The database's clock, and the place that was drawn next when it was known.
    moments: VecDeque<(OffsetDateTime, i64)>,
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
    /// The message's time is this or later.
    pub not_before: OffsetDateTime,
    slot: Option<Slot>,
}

/// How far a log is settled in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledUntil {
    pub log: InstanceId,
    /// Every message of this time or earlier is settled.
    pub until: OffsetDateTime,
    /// So is every one up to this place; those behind it are later than `until`.
    pub to: i64,
}

/// A part of the log that is to be read.
#[derive(Debug)]
pub struct OwnPage {
    pub from: i64,
    pub before: i64,
    /// What was under way when the reading began.
    without: BTreeSet<i64>,
}

impl OwnLog {
    /// The log of a new identity, none of whose messages has a time before `not_before`.
    #[must_use]
    pub fn new(id: InstanceId, not_before: OffsetDateTime) -> Arc<Self> {
        let log = Arc::new(Log::new(id, -1, -1));
        let draws = Draws {
            next: 0,
            not_before,
            moments: VecDeque::from([(not_before, 0)]),
            cursor: None,
            under_way: BTreeSet::new(),
        };
        Arc::new(Self { log, draws: Mutex::new(draws), behind: Notify::new() })
    }

    /// The database's clock was `now` a moment ago.
    pub fn note_clock(&self, now: OffsetDateTime) {
        let mut draws = self.draws();
        draws.not_before = draws.not_before.max(now);
        if draws.moments.len() == MOMENTS {
            draws.moments.pop_back();
        }
        let moment = (draws.not_before, draws.next);
        draws.moments.push_back(moment);
    }

    /// No message that is drawn from now on has an earlier time.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.draws().not_before
    }

    /// How far the log is settled in time; none where its server may have lost what was settled.
    #[must_use]
    pub fn settled_until(&self) -> Option<SettledUntil> {
        if self.log.is_doubted() {
            return None;
        }
        let settled_to = self.log.settled_to();
        let mut draws = self.draws();
        // The last one that counts stays, for whoever asks again.
        while draws.moments.get(1).is_some_and(|(_, next)| *next <= settled_to + 1) {
            draws.moments.pop_front();
        }
        let (at, next) = draws.moments.front().copied().filter(|(_, next)| *next <= settled_to + 1)?;
        // A message may have the very time of the moment. The database counts in microseconds.
        Some(SettledUntil { log: self.log.id, until: at - Duration::from_micros(1), to: next - 1 })
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
        Ticket { log: Arc::clone(self), seq, not_before: draws.not_before, slot }
    }

    /// The next page of at most `max` places, where the log is behind. None when it has caught up.
    #[must_use]
    pub fn next_page(&self, max: usize) -> Option<OwnPage> {
        let mut draws = self.draws();
        let from = draws.cursor?;
        if from == draws.next {
            draws.cursor = None;
            return None;
        }
        let before = draws.next.min(from.saturating_add(i64::try_from(max).unwrap_or(i64::MAX)));
        draws.cursor = Some(before);
        Some(OwnPage { from, before, without: draws.under_way.range(from..before).copied().collect() })
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

    /// What stands at this place is to be read now, although there was room for it: it was taken into memory by nobody.
    pub fn read_apart(&self, seq: i64) {
        self.log.read_apart(seq, Instant::now());
        self.behind.notify_one();
    }

    fn draws(&self) -> MutexGuard<'_, Draws> {
        self.draws.lock().expect("nothing panics with the lock in hand")
    }
}

impl OwnPage {
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
    use crate::slot::Slots;

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(second).unwrap()
    }

    fn own() -> Arc<OwnLog> {
        OwnLog::new(1.into(), at(0))
    }

    /// Up to before which second the log is settled, and to which place.
    fn until(log: &OwnLog) -> (i64, i64) {
        let settled = log.settled_until().unwrap();
        ((settled.until + Duration::from_micros(1)).unix_timestamp(), settled.to)
    }

    #[test]
    fn a_log_is_settled_until_the_last_clock_known_before_the_oldest_message_under_way_was_drawn() {
        let log = own();
        assert_eq!(until(&log), (0, -1));
        log.note_clock(at(1));
        let (first, second) = (log.draw(None), log.draw(None));
        log.note_clock(at(2));
        let third = log.draw(None);
        log.note_clock(at(3));
        assert_eq!(until(&log), (1, -1));
        second.absent();
        third.absent();
        assert_eq!(until(&log), (1, -1), "the first is under way");
        first.absent();
        assert_eq!(until(&log), (3, 2));
        assert_eq!(until(&log), (3, 2), "as often as it is asked");
    }

    #[test]
    fn no_message_has_an_earlier_time_than_what_may_be_told_when_it_is_drawn() {
        let log = own();
        log.note_clock(at(9));
        // The clock of a server that was promoted may be behind.
        log.note_clock(at(5));
        assert_eq!(until(&log), (9, -1));
        assert_eq!(log.draw(None).not_before, at(9));
    }

    #[test]
    fn of_many_moments_the_oldest_and_the_newest_are_remembered() {
        let log = own();
        log.note_clock(at(1));
        let held = log.draw(None);
        for second in 2..5000 {
            log.note_clock(at(second));
        }
        assert_eq!(until(&log), (1, -1));
        held.absent();
        assert_eq!(until(&log), (4999, 0));
    }

    /// The places that a page takes.
    fn taken(page: &OwnPage) -> Vec<i64> {
        (page.from..page.before).filter(|seq| page.takes(*seq)).collect()
    }

    #[test]
    fn with_a_slot_the_message_goes_into_the_queue() {
        let log = own();
        let slots = Slots::new(1);
        assert!(log.draw(slots.try_take()).committed().is_some());
        assert!(log.next_page(10).is_none());
    }

    #[test]
    fn from_the_first_one_without_a_slot_on_all_are_read_in_order() {
        let log = own();
        let slots = Slots::new(2);
        let first = log.draw(None);
        let second = log.draw(slots.try_take());
        assert!(first.committed().is_none() && second.committed().is_none(), "a slot is no way past what waits");
        assert_eq!(taken(&log.next_page(1).unwrap()), [0]);
        let third = log.draw(slots.try_take());
        assert!(third.committed().is_none());
        assert_eq!(taken(&log.next_page(10).unwrap()), [1, 2]);
        assert!(log.next_page(10).is_none(), "caught up");
        let slots = Slots::new(1);
        assert!(log.draw(slots.try_take()).committed().is_some());
    }

    #[test]
    fn what_commits_behind_the_cursor_is_read_by_itself() {
        let log = own();
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
        let log = own();
        let (first, second) = (log.draw(None), log.draw(None));
        second.absent();
        assert_eq!(log.log.settled_to(), -1);
        first.absent();
        assert_eq!(log.log.settled_to(), 1);
    }
}

//! Who has a connection. There are so many at most, of all callers and, where it is set, of one address; where all are
//! taken the one that has been idle longest makes room, so that nobody keeps others out by holding connections.
//!
//! A connection is another thread's: it is marked and woken here, and ends itself. Its slot is free at once.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::runtime::metrics::own::{CONNECTIONS_ENDED, CONNECTIONS_REFUSED};

/// [`Seat::idle_since`] of a connection with a request under way.
const BUSY: u64 = u64::MAX;
/// [`Seat::idle_since`] of a connection that has lost its slot.
const GONE: u64 = u64::MAX - 1;
/// A connection so young may have its first request on the way: it keeps its slot, and the next one is refused.
const YOUNG: Duration = Duration::from_millis(250);
/// However full it is, so long a connection may rest between two requests.
const LEAST_KEEP_ALIVE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Slots {
    most: u32,
    /// 0: any number.
    per_address: u32,
    keep_alive: Duration,
    begun: Instant,
    used: AtomicU32,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    seats: HashMap<u64, Arc<Seat>>,
    by_address: HashMap<IpAddr, u32>,
}

/// One connection, as the others see it.
#[derive(Debug)]
pub(super) struct Seat {
    address: Option<IpAddr>,
    slots_begun: Instant,
    /// In milliseconds since the slots were made; or [`BUSY`] or [`GONE`].
    idle_since: AtomicU64,
    waker: AtomicWaker,
}

/// The right to one connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    seat: Arc<Seat>,
}

impl Slots {
    pub(super) fn new(most: u32, per_address: u32, keep_alive: Duration) -> Arc<Self> {
        let (begun, used, held) = (Instant::now(), AtomicU32::new(0), Mutex::default());
        Arc::new(Self { most, per_address, keep_alive, begun, used, held })
    }

    /// A slot for a connection from `address`; none where every connection has a request under way.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Slot> {
        self.take_at(address, Instant::now())
    }

    fn take_at(self: &Arc<Self>, address: Option<IpAddr>, now: Instant) -> Option<Slot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.take_from(&mut held, address, now);
        self.used.store(u32::try_from(held.seats.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        if taken.is_none() {
            CONNECTIONS_REFUSED.add(1);
        }
        taken
    }

    fn take_from(self: &Arc<Self>, held: &mut Held, address: Option<IpAddr>, now: Instant) -> Option<Slot> {
        let of_address = address.and_then(|address| held.by_address.get(&address)).copied().unwrap_or(0);
        if self.per_address > 0 && of_address >= self.per_address {
            held.end_longest_idle(now, |seat| seat.address == address)?;
        }
        let keep_alive = shrunk(self.keep_alive, held.seats.len(), self.most);
        if keep_alive < self.keep_alive {
            // Their own clocks were set when there was more room.
            held.end_idle(now, keep_alive);
        }
        if held.seats.len() >= self.most as usize {
            held.end_longest_idle(now, |_| true)?;
        }
        let (slots_begun, waker) = (self.begun, AtomicWaker::new());
        let seat = Arc::new(Seat { address, slots_begun, idle_since: AtomicU64::new(BUSY), waker });
        seat.idle(now);
        let number = held.next;
        held.next += 1;
        held.seats.insert(number, Arc::clone(&seat));
        if let Some(address) = address {
            *held.by_address.entry(address).or_default() += 1;
        }
        Some(Slot { slots: Arc::clone(self), number, seat })
    }
}

impl Held {
    /// None where there is none to end.
    fn end_longest_idle(&mut self, now: Instant, which: impl Fn(&Seat) -> bool) -> Option<()> {
        let idle = self.seats.iter().filter(|(_, seat)| which(seat));
        let idle = idle.filter_map(|(number, seat)| Some((seat.idle_for(now)?, *number)));
        let (_, number) = idle.filter(|(idle, _)| *idle >= YOUNG).max()?;
        // Where its request has begun since it was looked at, it is closed behind the answer.
        self.remove(number)?.end();
        CONNECTIONS_ENDED.add(1);
        Some(())
    }

    fn end_idle(&mut self, now: Instant, longer_than: Duration) {
        let idle = self.seats.iter().filter(|(_, seat)| seat.idle_for(now).is_some_and(|idle| idle > longer_than));
        for number in idle.map(|(number, _)| *number).collect::<Vec<_>>() {
            if let Some(seat) = self.remove(number) {
                seat.end();
                CONNECTIONS_ENDED.add(1);
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Seat>> {
        let seat = self.seats.remove(&number)?;
        if let Some(address) = seat.address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        Some(seat)
    }
}

impl Seat {
    pub(super) fn busy(&self) {
        self.unless_gone(BUSY);
    }

    pub(super) fn idle(&self, now: Instant) {
        self.unless_gone(self.millis(now));
    }

    pub(super) fn is_gone(&self) -> bool {
        self.idle_since.load(Ordering::Acquire) == GONE
    }

    fn unless_gone(&self, new: u64) {
        // Only this and `end` write, and an end is for good.
        let before = self.idle_since.load(Ordering::Acquire);
        if before != GONE {
            let swapped = self.idle_since.compare_exchange(before, new, Ordering::AcqRel, Ordering::Acquire);
            debug_assert!(swapped.is_ok() || self.is_gone(), "a connection belongs to one thread");
        }
    }

    fn end(&self) {
        self.idle_since.store(GONE, Ordering::Release);
        self.waker.wake();
    }

    /// None: a request is under way, or it is gone.
    fn idle_for(&self, now: Instant) -> Option<Duration> {
        match self.idle_since.load(Ordering::Acquire) {
            BUSY | GONE => None,
            since => Some(Duration::from_millis(self.millis(now).saturating_sub(since))),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from((now - self.slots_begun).as_millis()).unwrap_or(GONE - 1)
    }
}

impl Slot {
    pub(super) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.seat)
    }

    /// Who is woken when the connection has to end.
    pub(super) fn wakes(&self, waker: &Waker) {
        self.seat.waker.register(waker);
    }

    /// How long the connection may rest between two requests: less than `usual` where more than four of five slots
    /// are taken.
    pub(super) fn keep_alive(&self, usual: Duration) -> Duration {
        shrunk(usual, self.slots.used.load(Ordering::Relaxed) as usize, self.slots.most)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.slots.held.lock().unwrap_or_else(PoisonError::into_inner);
        // None where it made room for another one.
        drop(held.remove(self.number));
        self.slots.used.store(u32::try_from(held.seats.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// In proportion to what is free of the last fifth.
fn shrunk(usual: Duration, used: usize, most: u32) -> Duration {
    let used = u32::try_from(used).unwrap_or(u32::MAX);
    let (fifth, free) = (most / 5, most.saturating_sub(used));
    if fifth == 0 || free >= fifth { usual } else { (usual * free / fifth).max(LEAST_KEEP_ALIVE).min(usual) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(75);

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_longest_idle_makes_room_and_none_with_a_request_under_way() {
        let (slots, now) = (Slots::new(3, 0, LONG), Instant::now());
        let held: Vec<_> = (0..3).map(|_| slots.take_at(address(1), now).unwrap()).collect();
        assert!(slots.take_at(address(2), now).is_none(), "their first requests may be on the way");
        held[0].seat.busy();
        held[1].seat.busy();
        held[1].seat.idle(now + SECOND);
        let more = slots.take_at(address(2), now + SECOND).unwrap();
        assert_eq!([0, 1, 2].map(|n| held[n].seat.is_gone()), [false, false, true]);
        // What the one that is gone still tells changes nothing.
        held[2].seat.idle(now + SECOND);
        assert!(held[2].seat.is_gone());
        more.seat.busy();
        held[1].seat.busy();
        assert!(slots.take_at(address(3), now + LONG).is_none(), "all are busy");
        drop(held);
        drop(more);
        let left = slots.held.lock().unwrap();
        assert!(left.seats.is_empty() && left.by_address.is_empty());
    }

    #[test]
    fn an_address_has_so_many_and_others_do_not_notice() {
        let (slots, now) = (Slots::new(100, 2, LONG), Instant::now());
        let held = [slots.take_at(address(1), now).unwrap(), slots.take_at(address(1), now).unwrap()];
        let other = slots.take_at(address(2), now).unwrap();
        assert!(slots.take_at(address(1), now).is_none());
        held[1].seat.busy();
        let third = slots.take_at(address(1), now + SECOND).unwrap();
        assert!(held[0].seat.is_gone() && !other.seat.is_gone());
        third.seat.busy();
        assert!(slots.take_at(address(1), now + SECOND).is_none());
    }

    #[test]
    fn above_four_fifths_connections_rest_shorter() {
        let (slots, now) = (Slots::new(100, 0, LONG), Instant::now());
        let held: Vec<_> = (0..80).map(|_| slots.take_at(address(1), now).unwrap()).collect();
        assert_eq!(held[0].keep_alive(LONG), LONG);
        let more: Vec<_> = (0..10).map(|_| slots.take_at(address(1), now).unwrap()).collect();
        assert_eq!(held[0].keep_alive(LONG), LONG / 2);
        let later = now + LONG / 2 + SECOND;
        more.iter().for_each(|slot| slot.seat.idle(later));
        let one = slots.take_at(address(1), later).unwrap();
        assert!(held.iter().all(|slot| slot.seat.is_gone()) && more.iter().all(|slot| !slot.seat.is_gone()));
        assert_eq!(one.keep_alive(LONG), LONG);
    }
}

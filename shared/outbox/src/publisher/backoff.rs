//! Messages that wait for their next attempt, and how long they do.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::Outgoing;

/// The pause after the given number of failures: doubled with each, up to `max`, of which a random
/// half is taken off so that what failed together does not come back together.
pub(super) fn pause(initial: Duration, max: Duration, failures: u32) -> Duration {
    let doubled = initial.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let pause = doubled.min(max);
    // The clock's nanoseconds are random enough to spread pauses.
    let random = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos() % 1000);
    pause / 2 + (pause / 2) * random / 1000
}

/// What waits, soonest first.
#[derive(Debug, Default)]
pub(super) struct BackoffHeap(BinaryHeap<Due>);

#[derive(Debug)]
struct Due {
    at: Instant,
    message: Outgoing,
}

impl BackoffHeap {
    pub(super) fn push(&mut self, at: Instant, message: Outgoing) {
        self.0.push(Due { at, message });
    }

    pub(super) fn next_due(&mut self, now: Instant) -> Option<Outgoing> {
        self.0.peek().filter(|due| due.at <= now)?;
        self.0.pop().map(|due| Outgoing { waiting: None, ..due.message })
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.0.peek().map(|due| due.at)
    }
}

/// The heap's greatest is the soonest.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_is_between_half_and_the_whole_of_what_it_doubles_to(failures in 1u32..100, initial in 1u64..1000) {
            let (initial, max) = (Duration::from_millis(initial), Duration::from_secs(30));
            let whole = initial.saturating_mul(2u32.saturating_pow(failures - 1)).min(max);
            let pause = pause(initial, max, failures);
            prop_assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
    }
}

//! A batch that was too slow for its time is halved, and the next ones begin with as little: else each of them would be
//! too slow first.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How much a transaction takes at once, of messages or orders. Half as many where that was too slow, an eighth more with each
/// time that it was not.
#[derive(Debug)]
pub struct AtOnce(AtomicUsize);

impl Default for AtOnce {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

impl AtOnce {
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn was_too_slow(&self, items: usize) {
        self.0.store((items / 2).max(1), Ordering::Relaxed);
    }

    pub fn was_quick_enough(&self, items: usize) {
        if items >= self.get() {
            self.0.store(items.saturating_add((items / 8).max(1)), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_slow_is_tried_with_half_as_many_and_grows_again() {
        let at_once = AtOnce::default();
        at_once.was_quick_enough(1000);
        assert_eq!(at_once.get(), usize::MAX);
        at_once.was_too_slow(1000);
        assert_eq!(at_once.get(), 500);
        at_once.was_quick_enough(250);
        assert_eq!(at_once.get(), 500, "fewer prove nothing");
        at_once.was_quick_enough(500);
        assert_eq!(at_once.get(), 562);
        at_once.was_too_slow(1);
        assert_eq!(at_once.get(), 1);
        for _ in 0..60 {
            at_once.was_quick_enough(at_once.get());
        }
        assert!(at_once.get() > 1000);
    }
}

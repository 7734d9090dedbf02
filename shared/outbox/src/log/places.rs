//! Sets of places in a log. What is settled is one long run with a few gaps behind it: kept as runs, so
//! that one message which waits for its next attempt does not make the rest grow.

use std::collections::BTreeMap;

/// Runs of places: the first of each, and its last.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<i64, i64>);

impl Places {
    pub(super) fn insert(&mut self, first: i64, last: i64) {
        let (mut first, mut last) = (first, last);
        // A run before, which reaches to this one or into it.
        if let Some((&start, &end)) = self.0.range(..=first).next_back()
            && end >= first - 1
        {
            first = start;
            last = last.max(end);
        }
        while let Some((&start, &end)) = self.0.range(first..=last.saturating_add(1)).next() {
            self.0.remove(&start);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    pub(super) fn contains(&self, place: i64) -> bool {
        self.0.range(..=place).next_back().is_some_and(|(_, &last)| place <= last)
    }
}

/// All places up to one, and some beyond it.
#[derive(Debug)]
pub(super) struct Settled {
    to: i64,
    beyond: Places,
}

impl Settled {
    pub(super) fn new(to: i64) -> Self {
        Self { to, beyond: Places::default() }
    }

    pub(super) fn to(&self) -> i64 {
        self.to
    }

    pub(super) fn insert(&mut self, first: i64, last: i64) {
        if last <= self.to {
            return;
        }
        self.beyond.insert(first, last);
        while let Some(run) = self.beyond.0.first_entry().filter(|run| *run.key() <= self.to + 1) {
            self.to = self.to.max(run.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_the_set_of_their_places(runs in prop::collection::vec((0i64..60, 0i64..5), 0..40)) {
            let (mut places, mut settled, mut all) = (Places::default(), Settled::new(9), BTreeSet::from_iter(0..=9));
            for (first, more) in runs {
                places.insert(first, first + more);
                settled.insert(first, first + more);
                all.extend(first..=first + more);
                for place in 10..70 {
                    prop_assert_eq!(places.contains(place), all.contains(&place));
                }
                let to = (0..).find(|place| !all.contains(place)).unwrap() - 1;
                prop_assert_eq!(settled.to(), to);
            }
            // Neighbours are one run.
            for (first, last) in &places.0 {
                prop_assert!(!places.contains(first - 1) && !places.contains(last + 1));
            }
        }
    }
}

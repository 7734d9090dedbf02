//! Sets of places in a log, in blocks. A block that is whole costs nothing beside its neighbours that are, and any
//! other one 512 bytes: neither one message that waits for its next attempt makes the rest grow, nor a partition of
//! the topic that takes nothing for hours while every sixth message is its.

use std::collections::BTreeMap;

/// Places of a block have all but these lowest bits in common.
const BITS: u32 = 12;
const BLOCK: i64 = 1 << BITS;
const WORDS: usize = 1 << (BITS - u64::BITS.ilog2());

/// Places of a log.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Runs of blocks: the first of each, and its last.
    whole: BTreeMap<i64, i64>,
    others: BTreeMap<i64, Box<Block>>,
}

/// A bit for each place.
#[derive(Debug)]
struct Block([u64; WORDS]);

impl Places {
    pub(super) fn insert(&mut self, first: i64, last: i64) {
        for block in [first >> BITS, last >> BITS] {
            let begin = block << BITS;
            self.insert_in(block, first.max(begin) - begin, last.min(begin + BLOCK - 1) - begin);
        }
        let (between, end) = ((first >> BITS) + 1, (last >> BITS) - 1);
        if between <= end {
            let within: Vec<_> = self.others.range(between..=end).map(|(block, _)| *block).collect();
            within.iter().for_each(|block| drop(self.others.remove(block)));
            self.insert_whole(between, end);
        }
    }

    pub(super) fn contains(&self, place: i64) -> bool {
        let block = place >> BITS;
        self.whole_to(block).is_some()
            || self.others.get(&block).is_some_and(|bits| bits.first_missing(place & (BLOCK - 1)) > place & (BLOCK - 1))
    }

    /// The first place from `place` on that is not among these.
    fn first_missing(&self, place: i64) -> i64 {
        let mut place = place;
        loop {
            let block = place >> BITS;
            let begin = block << BITS;
            let next = match (self.whole_to(block), self.others.get(&block)) {
                (Some(last), _) => (last + 1) << BITS,
                (None, Some(bits)) => begin + bits.first_missing(place - begin),
                (None, None) => place,
            };
            if next >> BITS == block {
                return next;
            }
            place = next;
        }
    }

    /// Forgets what is below `place`, in steps of a block.
    fn forget_below(&mut self, place: i64) {
        let block = place >> BITS;
        while let Some(first) = self.others.first_entry().filter(|first| *first.key() < block) {
            first.remove();
        }
        while let Some(run) = self.whole.first_entry().filter(|run| *run.get() < block) {
            run.remove();
        }
    }

    fn insert_in(&mut self, block: i64, first: i64, last: i64) {
        if self.whole_to(block).is_some() {
            return;
        }
        let bits = self.others.entry(block).or_insert_with(|| Box::new(Block([0; WORDS])));
        bits.insert(first, last);
        if bits.first_missing(0) == BLOCK {
            self.others.remove(&block);
            self.insert_whole(block, block);
        }
    }

    /// The last block of the run that this one is in.
    fn whole_to(&self, block: i64) -> Option<i64> {
        self.whole.range(..=block).next_back().map(|(_, last)| *last).filter(|last| block <= *last)
    }

    fn insert_whole(&mut self, first: i64, last: i64) {
        let (mut first, mut last) = (first, last);
        // A run before, which reaches to this one or into it.
        if let Some((&start, &end)) = self.whole.range(..=first).next_back()
            && end >= first - 1
        {
            first = start;
            last = last.max(end);
        }
        while let Some((&start, &end)) = self.whole.range(first..=last.saturating_add(1)).next() {
            self.whole.remove(&start);
            last = last.max(end);
        }
        self.whole.insert(first, last);
    }
}

impl Block {
    fn insert(&mut self, first: i64, last: i64) {
        for (word, begin) in self.0.iter_mut().zip((0..).step_by(64)) {
            let (first, last) = (first.max(begin) - begin, last.min(begin + 63) - begin);
            if first <= last {
                *word |= (u64::MAX >> (63 - (last - first))) << first;
            }
        }
    }

    /// The first place from `place` on that is not in it; the next block's first where all are.
    fn first_missing(&self, place: i64) -> i64 {
        for (word, begin) in self.0.iter().zip((0..).step_by(64)) {
            if begin + 63 < place {
                continue;
            }
            // What stands before it counts as there.
            let before = if place > begin { !(u64::MAX << (place - begin)) } else { 0 };
            let there = (word | before).trailing_ones();
            if there < 64 {
                return begin + i64::from(there);
            }
        }
        BLOCK
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
        // The next one in order is the rule.
        if first <= self.to + 1 {
            self.to = self.beyond.first_missing(last + 1) - 1;
            self.beyond.forget_below(self.to + 1);
        } else {
            self.beyond.insert(first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_are_the_set_of_their_places(
            // Some over the end of a block, and some over a whole one.
            runs in prop::collection::vec((0i64..60, prop_oneof![4 => 0i64..5, 1 => Just(2 * BLOCK)]), 0..40),
            from in prop_oneof![Just(0), Just(BLOCK - 30)],
        ) {
            let (mut places, mut settled) = (Places::default(), Settled::new(from + 9));
            let mut all = vec![false; usize::try_from(3 * BLOCK + 100).unwrap()];
            for (first, more) in runs {
                let (first, last) = (first, first + more);
                places.insert(from + first, from + last);
                settled.insert(from + first, from + last);
                all[usize::try_from(first).unwrap()..=usize::try_from(last).unwrap()].fill(true);
            }
            for (place, is_there) in (from..).zip(&all) {
                prop_assert_eq!(places.contains(place), *is_there);
            }
            all[..10].fill(true);
            let missing = all.iter().position(|is_there| !is_there).unwrap();
            prop_assert_eq!(settled.to(), from + i64::try_from(missing).unwrap() - 1);
            // Neighbours are one run, and nothing is kept that is settled.
            for (first, last) in &places.whole {
                prop_assert!(places.whole_to(first - 1).is_none() && places.whole_to(last + 1).is_none());
                prop_assert!(places.others.range(first..=last).next().is_none());
            }
            prop_assert!(settled.beyond.others.keys().all(|block| *block >= settled.to >> BITS));
        }
    }

    /// A log of 24 million places is 3 MB then.
    #[test]
    fn of_a_partition_that_takes_nothing_a_bit_is_kept_for_each_place_and_of_one_message_a_block() {
        let (mut stands, mut waits) = (Settled::new(-1), Settled::new(-1));
        for place in 1..150_000 {
            waits.insert(place, place);
            if place % 6 > 0 {
                stands.insert(place, place);
            }
        }
        assert_eq!((stands.to(), waits.to()), (-1, -1));
        assert_eq!(stands.beyond.others.len(), 37);
        assert_eq!((waits.beyond.others.len(), waits.beyond.whole.len()), (2, 1));
        for place in (0..150_000).step_by(6) {
            stands.insert(place, place);
        }
        waits.insert(0, 0);
        assert_eq!((stands.to(), waits.to()), (149_999, 149_999));
        assert!(stands.beyond.others.len() <= 1 && stands.beyond.whole.is_empty());
    }
}

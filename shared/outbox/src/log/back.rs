//! Places of a log whose messages are in no memory and wait in the table until their partition takes
//! messages again. Two bytes each, so that hours of a partition without a leader fit.

use std::collections::BTreeMap;

/// The most of one log: 8 MB. At 1,000 messages a second, a sixth of them for the partition, that is 7 hours.
/// What comes then stays in memory, and once that is full everything waits.
const MOST: usize = 4_000_000;
/// Places share what is above this many bits.
const BITS: u32 = 12;

/// By partition, then by block of places.
#[derive(Debug, Default)]
pub(super) struct Back {
    partitions: BTreeMap<i32, BTreeMap<i64, Vec<u16>>>,
    count: usize,
}

impl Back {
    /// False where there is no room.
    pub(super) fn insert(&mut self, partition: i32, seq: i64) -> bool {
        if self.count >= MOST {
            return false;
        }
        let within = u16::try_from(seq & ((1 << BITS) - 1)).expect("twelve bits");
        self.partitions.entry(partition).or_default().entry(seq >> BITS).or_default().push(within);
        self.count += 1;
        true
    }

    /// Whether there are any of a partition that is open.
    pub(super) fn has_open(&self, is_open: impl Fn(i32) -> bool) -> bool {
        self.partitions.keys().any(|partition| is_open(*partition))
    }

    /// Takes at most `max` out, the first ones of each partition that is open.
    pub(super) fn take(&mut self, is_open: impl Fn(i32) -> bool, max: usize) -> Vec<i64> {
        let mut taken = Vec::new();
        for (_, blocks) in self.partitions.iter_mut().filter(|(partition, _)| is_open(**partition)) {
            while taken.len() < max
                && let Some(mut block) = blocks.first_entry()
            {
                let number = *block.key();
                let places = block.get_mut();
                let some = places.len().min(max - taken.len());
                taken.extend(places.drain(..some).map(|within| (number << BITS) | i64::from(within)));
                if places.is_empty() {
                    block.remove();
                }
            }
        }
        self.partitions.retain(|_, blocks| !blocks.is_empty());
        self.count -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_once_when_its_partition_is_open(
            places in prop::collection::btree_map(0i64..20_000, 0i32..4, 0..200), max in 1usize..50
        ) {
            let mut back = Back::default();
            for (seq, partition) in &places {
                prop_assert!(back.insert(*partition, *seq));
            }
            let mut out = BTreeSet::new();
            while back.has_open(|partition| partition != 1) {
                let taken = back.take(|partition| partition != 1, max);
                prop_assert!(!taken.is_empty() && taken.len() <= max);
                for seq in taken {
                    prop_assert!(places[&seq] != 1 && out.insert(seq));
                }
            }
            let closed = places.values().filter(|partition| **partition == 1).count();
            prop_assert_eq!(out.len() + closed, places.len());
            prop_assert_eq!(back.count, closed);
        }
    }
}

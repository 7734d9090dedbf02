//! What the client that reads has fetched, by its own statistics. Offsets are no number of messages: markers of
//! transactions, and messages of those that were aborted, have some too, and are never handed out.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::Statistics;

use crate::{metrics::THROTTLED, place::Partition};

#[derive(Clone, Copy, Debug)]
struct Fetched {
    /// The offset that is fetched next.
    next: i64,
    /// Messages fetched and not handed out.
    queued: i64,
}

#[derive(Debug, Default)]
pub struct Fetching {
    partitions: Mutex<BTreeMap<Partition, Fetched>>,
    is_throttled: AtomicBool,
    /// Messages handed out that are not counted yet.
    under_way: Mutex<BTreeMap<Partition, usize>>,
}

impl Fetching {
    /// Takes the client's statistics; what is no statistics changes nothing. Whether a broker is connected.
    pub fn note(&self, json: &[u8]) -> bool {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(json) else { return false };
        let is_connected = statistics.brokers.values().any(|broker| broker.state == "UP");
        let throttled =
            statistics.brokers.values().filter_map(|broker| broker.throttle.as_ref()).map(|window| window.max);
        let throttled = u32::try_from(throttled.max().unwrap_or(0)).unwrap_or(0);
        THROTTLED.set(f64::from(throttled) / 1000.0);
        if !self.is_throttled.swap(throttled > 0, Ordering::Relaxed) && throttled > 0 {
            tracing::warn!(milliseconds = throttled, "kafka throttles this service: a quota makes its requests wait");
        }
        let fetched = statistics.topics.into_values().flat_map(|topic| {
            let name = topic.topic;
            topic.partitions.into_values().map(move |one| {
                let fetched = Fetched { next: one.next_offset, queued: one.fetchq_cnt };
                (Partition::new(name.as_str(), one.partition), fetched)
            })
        });
        *self.partitions.lock().unwrap_or_else(PoisonError::into_inner) = fetched.collect();
        is_connected
    }

    /// So many more messages were handed out.
    pub fn handed_out(&self, messages: BTreeMap<Partition, usize>) {
        let mut under_way = self.all_under_way();
        for (partition, count) in messages {
            *under_way.entry(partition).or_default() += count;
        }
    }

    /// So many more of these are counted.
    pub fn counted(&self, messages: &BTreeMap<Partition, usize>) {
        self.all_under_way().retain(|partition, under_way| {
            *under_way = under_way.saturating_sub(messages.get(partition).copied().unwrap_or(0));
            *under_way > 0
        });
    }

    /// Messages handed out that are not counted yet.
    pub fn under_way(&self) -> usize {
        self.all_under_way().values().sum()
    }

    /// Whether messages of this partition were handed out that are not counted yet.
    pub fn has_under_way(&self, partition: &Partition) -> bool {
        self.all_under_way().contains_key(partition)
    }

    /// Whether nothing is left to be handed out before the offset `end`, and all that was is counted.
    pub fn is_through(&self, partition: &Partition, end: i64) -> bool {
        if self.has_under_way(partition) {
            return false;
        }
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.get(partition).is_some_and(|fetched| fetched.next >= end && fetched.queued == 0)
    }

    fn all_under_way(&self) -> MutexGuard<'_, BTreeMap<Partition, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_through_by_itself_however_much_of_others_is_under_way() {
        let (quiet, busy) = (Partition::new("t", 0), Partition::new("t", 1));
        let of = |partition: &Partition, count| BTreeMap::from([(partition.clone(), count)]);
        let fetching = Fetching::default();
        // The last of the quiet one is a marker of a transaction, which is never handed out.
        let (fetched, still) = (Fetched { next: 8, queued: 0 }, Fetched { next: 8, queued: 1 });
        *fetching.partitions.lock().unwrap() = [(quiet.clone(), fetched), (busy.clone(), still)].into();
        fetching.handed_out(of(&quiet, 2));
        fetching.handed_out(of(&busy, 500));
        assert!(!fetching.is_through(&quiet, 8), "two are not counted yet");
        fetching.counted(&of(&quiet, 2));
        assert_eq!(fetching.under_way(), 500);
        assert!(fetching.is_through(&quiet, 8) && !fetching.is_through(&quiet, 9));
        fetching.counted(&of(&busy, 500));
        assert!(!fetching.is_through(&busy, 8), "one is not handed out yet");
    }
}

//! What the client that reads has fetched, by its own statistics. Offsets are no number of messages: markers of
//! transactions, and messages of those that were aborted, have some too, and are never handed out.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
    /// Messages handed out, and those of them that are counted, since the start.
    handed_out: AtomicU64,
    counted: AtomicU64,
}

impl Fetching {
    /// Takes the client's statistics; what is no statistics changes nothing.
    pub fn note(&self, json: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(json) else { return };
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
    }

    /// So many more messages were handed out.
    pub fn handed_out(&self, messages: usize) {
        self.handed_out.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// So many more of these are counted.
    pub fn counted(&self, messages: usize) {
        self.counted.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Messages handed out that are not counted yet.
    pub fn under_way(&self) -> usize {
        let counted = self.counted.load(Ordering::Relaxed);
        usize::try_from(self.handed_out.load(Ordering::Relaxed) - counted).unwrap_or(usize::MAX)
    }

    /// Whether nothing is left to be handed out before the offset `end`, and all that was is counted.
    pub fn is_through(&self, partition: &Partition, end: i64) -> bool {
        if self.under_way() > 0 {
            return false;
        }
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.get(partition).is_some_and(|fetched| fetched.next >= end && fetched.queued == 0)
    }
}

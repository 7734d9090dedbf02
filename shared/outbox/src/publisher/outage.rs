//! Kafka takes nothing, whatever the message. Sending pauses, longer each time, until something
//! gets through; then it goes on at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::backoff;
use crate::{metrics::OUTAGE, settings};

#[derive(Debug)]
pub(super) struct Outage {
    pause_initial: Duration,
    pause_max: Duration,
    pauses: u32,
    until: Instant,
    delivered: Delivered,
    delivered_at_last_pause: u64,
}

/// How many messages got through, counted where the answers arrive.
pub(super) type Delivered = Arc<AtomicU64>;

/// Whether Kafka takes messages, as operators see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    cluster: AtomicU8,
    /// Some partition takes nothing.
    stands: AtomicBool,
}

impl Reach {
    const GOOD: u8 = 0;
    const NO_BROKER: u8 = 1;
    const REFUSED: u8 = 2;

    pub(super) fn no_broker(&self) {
        self.0.cluster.store(Self::NO_BROKER, Ordering::Relaxed);
        self.set_gauge();
    }

    pub(super) fn refused(&self) {
        self.0.cluster.store(Self::REFUSED, Ordering::Relaxed);
        self.set_gauge();
    }

    /// Whether some partition takes nothing.
    pub(super) fn stands(&self, stands: bool) {
        self.0.stands.store(stands, Ordering::Relaxed);
        self.set_gauge();
    }

    /// A message got through.
    pub(super) fn delivered(&self) {
        if self.0.cluster.swap(Self::GOOD, Ordering::Relaxed) != Self::GOOD {
            self.set_gauge();
        }
    }

    /// A broker is connected. Whether that ends the outage: with nothing to send, nothing else would.
    pub(super) fn connected(&self) -> bool {
        let (from, to) = (Self::NO_BROKER, Self::GOOD);
        let ended = self.0.cluster.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if ended {
            self.set_gauge();
        }
        ended
    }

    fn set_gauge(&self) {
        let is_good = self.0.cluster.load(Ordering::Relaxed) == Self::GOOD && !self.0.stands.load(Ordering::Relaxed);
        OUTAGE.set(if is_good { 0.0 } else { 1.0 });
    }
}

impl Outage {
    pub(super) fn new(settings: &settings::PublisherSettings) -> Self {
        Self {
            pause_initial: settings.backoff_initial,
            pause_max: settings.outage_backoff_max,
            pauses: 0,
            until: Instant::now(),
            delivered: Delivered::default(),
            delivered_at_last_pause: 0,
        }
    }

    pub(super) fn delivered(&self) -> Delivered {
        Arc::clone(&self.delivered)
    }

    /// When sending may be tried again.
    pub(super) fn over_at(&self) -> Instant {
        self.until
    }

    /// A message failed through no fault of its own. Those that fail together are one failure.
    pub(super) fn goes_on(&mut self) {
        let now = Instant::now();
        if self.until > now {
            return;
        }
        let delivered = self.delivered.load(Ordering::Relaxed);
        self.pauses = if delivered == self.delivered_at_last_pause { self.pauses.saturating_add(1) } else { 1 };
        self.delivered_at_last_pause = delivered;
        self.until = now + backoff::pause(self.pause_initial, self.pause_max, self.pauses);
    }
}

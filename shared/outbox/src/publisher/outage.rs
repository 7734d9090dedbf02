//! Kafka takes nothing, whatever the message. Sending pauses, longer each time, until something
//! gets through; then it goes on at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::backoff;
use crate::settings;

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

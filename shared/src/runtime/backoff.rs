//! The pauses between attempts at something outside that is out of reach.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// From `first` on, doubled each time up to `longest`, and spread; without an end.
pub fn backoff(first: Duration, longest: Duration) -> impl Iterator<Item = Duration> + Send + use<> {
    ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times().with_jitter().build()
}

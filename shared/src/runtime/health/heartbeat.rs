//! Whether tasks hang. A piece of work is a future with a limit, at which it is given up; a task that is with the
//! same piece for much longer than its limit hangs: whatever is outside may be silent for as long as it likes,
//! which fails pieces of work, and nothing else. Waiting for work is none.
//!
//! Time is counted by a thread that looks now and then, so neither a runtime whose threads are blocked
//! nor a process that was stopped for a while is judged wrongly: who does not run does not look either.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::runtime::RuntimeMetrics;

/// A limit is counted in so many parts, see [`limited`].
const PARTS: u32 = 5;

/// Awaits `work` for about `limit` of the time in which this process runs; none where that is over.
///
/// A process that was stopped for longer, by a signal or together with its machine, wakes up with the
/// limit passed and the answer unread. The limit is counted in parts, and a stop uses up one of them.
pub(crate) async fn limited<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    for _ in 0..PARTS {
        if let Ok(done) = tokio::time::timeout(limit / PARTS, &mut work).await {
            return Some(done);
        }
    }
    None
}

/// A piece of work was not done within its limit.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not done within {0:?}")]
pub struct TimedOut(pub(super) Duration);

impl From<TimedOut> for sqlx::Error {
    fn from(late: TimedOut) -> Self {
        Self::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, late))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Heartbeat(Arc<Beats>);

#[derive(Debug, Default)]
struct Beats {
    /// Grows with each piece of work, and with its end: odd while there is one.
    count: AtomicU64,
    /// Of the present piece of work, in milliseconds.
    limit: AtomicU64,
}

impl Heartbeat {
    pub(super) fn busy(&self, limit: Duration) -> Work {
        self.0.limit.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let now = self.0.count.load(Ordering::Relaxed);
        self.0.count.store((now + 1) | 1, Ordering::Relaxed);
        Work(self.clone())
    }

    fn idle(&self) {
        let now = self.0.count.load(Ordering::Relaxed);
        self.0.count.store(now + now % 2, Ordering::Relaxed);
    }

    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.0.limit.load(Ordering::Relaxed))
    }
}

/// A piece of work, until it is dropped. Nobody else gets one in hand, so that nobody can wait with it.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub(super) struct Work(Heartbeat);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.idle();
    }
}

/// What the looking thread remembers of somebody.
#[derive(Debug, Default)]
pub(super) struct Watched<T> {
    last: Option<T>,
    /// How long it has been with the same piece of work.
    pub busy_for: Duration,
}

impl<T: PartialEq> Watched<T> {
    fn look(&mut self, mark: Option<T>, passed: Duration) {
        self.busy_for = if mark.is_some() && mark == self.last { self.busy_for + passed } else { Duration::ZERO };
        self.last = mark;
    }
}

impl Watched<u64> {
    pub(super) fn look_at(&mut self, heartbeat: &Heartbeat, passed: Duration) {
        let mark = heartbeat.0.count.load(Ordering::Relaxed);
        self.look((!mark.is_multiple_of(2)).then_some(mark), passed);
    }
}

/// The threads of the runtime: one that is neither parked nor gets on with its tasks is blocked by one.
#[derive(Debug)]
pub(super) struct Threads {
    metrics: RuntimeMetrics,
    watched: Vec<Watched<(u64, Duration)>>,
}

impl Threads {
    pub(super) fn new(metrics: RuntimeMetrics) -> Self {
        let watched = std::iter::repeat_with(Watched::default).take(metrics.num_workers()).collect();
        Self { metrics, watched }
    }

    pub(super) fn look(&mut self, passed: Duration) {
        for (thread, watched) in self.watched.iter_mut().enumerate() {
            let parked = self.metrics.worker_park_unpark_count(thread);
            let mark = (parked, self.metrics.worker_total_busy_duration(thread));
            // An odd count says that it is parked.
            watched.look(parked.is_multiple_of(2).then_some(mark), passed);
        }
    }

    pub(super) fn busy_for(&self) -> Duration {
        self.watched.iter().map(|watched| watched.busy_for).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_the_same_piece_of_work_counts() {
        let (heartbeat, mut watched) = (Heartbeat::default(), Watched::default());
        let mut look = || {
            watched.look_at(&heartbeat, SECOND);
            watched.busy_for
        };
        assert_eq!([look(), look()], [Duration::ZERO; 2], "nothing to do");
        let work = heartbeat.busy(SECOND);
        assert_eq!([look(), look(), look()], [Duration::ZERO, SECOND, 2 * SECOND]);
        let next = heartbeat.busy(SECOND);
        assert_eq!([look(), look()], [Duration::ZERO, SECOND], "another piece");
        drop(work);
        drop(next);
        assert_eq!([look(), look()], [Duration::ZERO; 2]);
    }
}

//! Whether tasks hang. A task says when it begins a piece of work and when it has nothing to do; one
//! that is with the same piece for too long hangs. Waiting for work, and waiting for something outside
//! to come back, takes as long as it takes.
//!
//! Time is counted by a thread that looks now and then, so neither a runtime whose threads are blocked
//! nor a process that was stopped for a while is judged wrongly: who does not run does not look either.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::runtime::RuntimeMetrics;

/// Grows with each piece of work, and with its end: odd while there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    pub(super) fn busy(&self) -> Work {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store((now + 1) | 1, Ordering::Relaxed);
        Work(self.clone())
    }

    pub(super) fn idle(&self) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now + now % 2, Ordering::Relaxed);
    }
}

/// A piece of work: until it is dropped, or the task waits for something outside.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Work(Heartbeat);

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
        let mark = heartbeat.0.load(Ordering::Relaxed);
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
        let work = heartbeat.busy();
        assert_eq!([look(), look(), look()], [Duration::ZERO, SECOND, 2 * SECOND]);
        let next = heartbeat.busy();
        assert_eq!([look(), look()], [Duration::ZERO, SECOND], "another piece");
        drop(work);
        drop(next);
        assert_eq!([look(), look()], [Duration::ZERO; 2]);
    }
}

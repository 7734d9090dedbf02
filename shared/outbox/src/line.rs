//! A bounded line: handlers stand at one end, the tasks that write for them at the other.
//!
//! A handler hands its work over and awaits the answer; what happens after a COMMIT does not live in
//! the handler, which a leaving client takes down.

use std::{sync::Arc, time::Duration};

use shared::runtime::metrics::Gauge;
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};

/// The handlers' end. The line closes when the last one is dropped.
#[derive(Debug)]
pub struct LineSender<W, A>(mpsc::Sender<WorkItem<W, A>>);

/// The tasks' end, which they share.
#[derive(Debug)]
pub struct LineReceiver<W, A> {
    waiting: Arc<Mutex<mpsc::Receiver<WorkItem<W, A>>>>,
    /// How many of the tasks work on what they took.
    under_way: watch::Sender<usize>,
    /// How long a batch may fill meanwhile.
    fills_for: Duration,
}

/// Work is under way until it is dropped.
#[derive(Debug)]
pub struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn begin(under_way: &watch::Sender<usize>) -> Self {
        under_way.send_modify(|count| *count += 1);
        Self(under_way.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Work in the line, and who waits for it.
#[derive(Debug)]
pub struct WorkItem<W, A> {
    pub work: W,
    pub reply: Reply<A>,
    deadline: Instant,
}

/// The way back to the handler.
#[derive(Debug)]
pub struct Reply<A>(oneshot::Sender<A>);

impl<A> Reply<A> {
    /// A caller that has left is not told; nothing else changes.
    pub fn send(self, answer: A) {
        drop(self.0.send(answer));
    }
}

/// A line with room for `length`, of which a batch fills for `fills_for` while another one is under way.
#[must_use]
pub fn line<W, A>(length: u32, fills_for: Duration) -> (LineSender<W, A>, LineReceiver<W, A>) {
    let (sender, receiver) = mpsc::channel(length as usize);
    let receiver =
        LineReceiver { waiting: Arc::new(Mutex::new(receiver)), under_way: watch::Sender::new(0), fills_for };
    (LineSender(sender), receiver)
}

impl<W, A> LineSender<W, A> {
    /// None where the line is full, or there is no answer in time: the work may still be done then.
    pub async fn ask(&self, work: W, deadline: Instant) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(WorkItem { work, reply: Reply(reply), deadline }).ok()?;
        timeout_at(deadline, answer).await.ok()?.ok()
    }
}

impl<W: Send + 'static, A: Send + 'static> LineSender<W, A> {
    /// Sets how much is waiting, and how much can, each time that it is called. Does not keep the line open.
    pub fn gauges(&self, length: &'static Gauge, capacity: &'static Gauge) -> impl Fn() + Send + Sync + use<W, A> {
        let line = self.0.downgrade();
        move || {
            if let Some(line) = line.upgrade() {
                length.set_count((line.max_capacity() - line.capacity()) as u64);
                capacity.set_count(line.max_capacity() as u64);
            }
        }
    }
}

impl<W, A> LineReceiver<W, A> {
    /// Fills `batch` with what is waiting, or the first that comes: at once where nothing is under way, else until
    /// that has ended, the batch is full, or the time is over. What nobody expects an answer to any more is left
    /// out. None when the line is closed and empty.
    pub async fn next(&self, batch: &mut Vec<WorkItem<W, A>>, max: usize) -> Option<UnderWay> {
        let mut waiting = self.waiting.lock().await;
        let open = waiting.recv_many(batch, max).await > 0;
        let until = Instant::now() + self.fills_for;
        let mut under_way = self.under_way.subscribe();
        while open && batch.len() < max && *under_way.borrow_and_update() > 0 && Instant::now() < until {
            let room = max - batch.len();
            tokio::select! {
                more = waiting.recv_many(batch, room) => if more == 0 { break },
                ended = under_way.changed() => ended.expect("this end of the line sends it"),
                () = sleep_until(until) => break,
            }
        }
        let now = Instant::now();
        batch.retain(|waiting| now < waiting.deadline);
        open.then(|| UnderWay::begin(&self.under_way))
    }
}

impl<W, A> Clone for LineSender<W, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W, A> Clone for LineReceiver<W, A> {
    fn clone(&self) -> Self {
        let Self { waiting, under_way, fills_for } = self;
        Self { waiting: Arc::clone(waiting), under_way: under_way.clone(), fills_for: *fills_for }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    fn put(sender: &LineSender<u32, ()>, numbers: std::ops::Range<u32>) {
        for work in numbers {
            let (reply, _) = oneshot::channel();
            let waiting = WorkItem { work, reply: Reply(reply), deadline: Instant::now() + LONG };
            sender.0.try_send(waiting).unwrap();
        }
    }

    async fn taken(receiver: &LineReceiver<u32, ()>, max: usize) -> (Vec<u32>, Duration, Option<UnderWay>) {
        let (begun, mut batch) = (Instant::now(), Vec::new());
        let work = receiver.next(&mut batch, max).await;
        (batch.into_iter().map(|waiting| waiting.work).collect(), begun.elapsed(), work)
    }

    #[tokio::test]
    async fn what_waits_alone_goes_at_once() {
        let (sender, receiver) = line(100, LONG);
        put(&sender, 0..1);
        let (batch, after, _) = taken(&receiver, 64).await;
        assert_eq!(batch, vec![0]);
        assert!(after < LONG);
    }

    #[tokio::test]
    async fn what_comes_while_work_is_under_way_goes_together_when_that_ends() {
        let (sender, receiver) = line(100, LONG);
        put(&sender, 0..1);
        let (_, _, work) = taken(&receiver, 64).await;
        let other = receiver.clone();
        let next = tokio::spawn(async move { taken(&other, 64).await });
        for numbers in [1..2, 2..4] {
            put(&sender, numbers);
            while sender.0.capacity() < 100 {
                tokio::task::yield_now().await;
            }
            assert!(!next.is_finished());
        }
        drop(work);
        let (batch, after, _) = next.await.unwrap();
        assert_eq!(batch, vec![1, 2, 3]);
        assert!(after < LONG);
    }

    #[tokio::test]
    async fn work_under_way_holds_up_no_full_batch() {
        let (sender, receiver) = line(100, LONG);
        put(&sender, 0..4);
        let (_, _, _work) = taken(&receiver, 1).await;
        let (batch, after, _) = taken(&receiver, 3).await;
        assert_eq!(batch, vec![1, 2, 3]);
        assert!(after < LONG);
    }

    #[tokio::test]
    async fn work_under_way_holds_up_others_for_so_long_and_no_longer() {
        let (sender, receiver) = line(100, SHORT);
        put(&sender, 0..2);
        let (_, _, _work) = taken(&receiver, 1).await;
        let (batch, after, _) = taken(&receiver, 64).await;
        assert_eq!(batch, vec![1]);
        assert!(after >= SHORT);
    }

    #[tokio::test]
    async fn the_line_ends_when_nobody_can_come_any_more() {
        let (sender, receiver) = line(100, LONG);
        put(&sender, 0..2);
        let (_, _, _work) = taken(&receiver, 1).await;
        drop(sender);
        assert_eq!(taken(&receiver, 64).await.0, vec![1]);
        assert!(taken(&receiver, 64).await.2.is_none());
    }
}

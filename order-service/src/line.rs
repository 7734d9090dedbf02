//! A bounded line: handlers stand at one end, the tasks that write for them at the other.
//!
//! A handler hands its work over and awaits the answer; what happens after a COMMIT does not live in
//! the handler, which a leaving client takes down.

use std::sync::Arc;

use shared::metrics::Gauge;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout_at},
};

/// The handlers' end. The line closes when the last one is dropped.
#[derive(Debug)]
pub struct Entrance<W, A>(mpsc::Sender<Waiting<W, A>>);

/// The tasks' end, which they share.
#[derive(Debug)]
pub struct Exit<W, A>(Arc<Mutex<mpsc::Receiver<Waiting<W, A>>>>);

/// Work in the line.
#[derive(Debug)]
pub struct Waiting<W, A> {
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

/// A line with room for `length`.
#[must_use]
pub fn line<W, A>(length: u32) -> (Entrance<W, A>, Exit<W, A>) {
    let (sender, receiver) = mpsc::channel(length as usize);
    (Entrance(sender), Exit(Arc::new(Mutex::new(receiver))))
}

impl<W, A> Entrance<W, A> {
    /// None where the line is full, or there is no answer in time: the work may still be done then.
    pub async fn ask(&self, work: W, deadline: Instant) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(Waiting { work, reply: Reply(reply), deadline }).ok()?;
        timeout_at(deadline, answer).await.ok()?.ok()
    }
}

impl<W: Send + 'static, A: Send + 'static> Entrance<W, A> {
    /// Tells how much is waiting, and how much can. Does not keep the line open.
    pub fn tell(&self, length: &'static Gauge, capacity: &'static Gauge) -> impl Fn() + Send + Sync + use<W, A> {
        let line = self.0.downgrade();
        move || {
            if let Some(line) = line.upgrade() {
                length.set_count((line.max_capacity() - line.capacity()) as u64);
                capacity.set_count(line.max_capacity() as u64);
            }
        }
    }
}

impl<W, A> Exit<W, A> {
    /// Fills `batch` with what is waiting now, or the first that comes: never waits for company. What
    /// nobody expects an answer to any more is left out. False when the line is closed and empty.
    pub async fn next(&self, batch: &mut Vec<Waiting<W, A>>, max: usize) -> bool {
        let open = self.0.lock().await.recv_many(batch, max).await > 0;
        let now = Instant::now();
        batch.retain(|waiting| now < waiting.deadline);
        open
    }
}

impl<W, A> Clone for Entrance<W, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W, A> Clone for Exit<W, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

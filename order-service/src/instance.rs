//! Who this process is to the outbox, and how anybody knows that it is alive.
//!
//! Every process takes a new identity and holds an advisory lock on it, on a connection of its own:
//! the held lock is the proof of life. A paused process keeps it, a killed one loses it at once. A
//! row of the outbox is in the memory of its owner only; what an ended identity left behind is
//! claimed by others. [`session`] has the steps; here is what the other tasks see of them.

mod identity;
pub mod session;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// An identity: what a row's `owner` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceId(i64);

/// Owns what fits into no queue. Has always ended.
pub const NOBODY: InstanceId = InstanceId(0);

impl InstanceId {
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

impl From<i64> for InstanceId {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

/// The identity that this process has now.
#[derive(Clone, Debug)]
pub struct Instance(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    standing: watch::Sender<Standing>,
    /// How old a confirmation may be when a message is handed over: half of what others wait before
    /// they take over, so that a hand-over is long past when they do.
    trusted_for: Duration,
    doubted: Notify,
    left_behind: Notify,
}

/// An identity, and when its lock was last known to be held.
#[derive(Clone, Copy, Debug)]
struct Standing {
    id: InstanceId,
    /// None while it is being replaced.
    confirmed_at: Option<Instant>,
    /// Rows may be owned by it that are in no memory.
    in_doubt: bool,
}

impl Standing {
    fn is_trusted(&self, trusted_for: Duration) -> bool {
        self.confirmed_at.is_some_and(|at| at.elapsed() < trusted_for)
    }
}

impl Instance {
    fn new(id: InstanceId, confirmed_at: Instant, takeover_after: Duration) -> Self {
        let confirmed_at = Some(confirmed_at);
        Self(Arc::new(Shared {
            standing: watch::Sender::new(Standing { id, confirmed_at, in_doubt: false }),
            trusted_for: takeover_after / 2,
            doubted: Notify::new(),
            left_behind: Notify::new(),
        }))
    }

    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.0.standing.borrow().id
    }

    /// The identity, if its lock was confirmed so lately that nobody can have taken over.
    #[must_use]
    pub fn confirmed(&self) -> Option<InstanceId> {
        let standing = *self.0.standing.borrow();
        standing.is_trusted(self.0.trusted_for).then_some(standing.id)
    }

    /// Until the lock is confirmed.
    pub async fn confirmation(&self) {
        let mut standing = self.0.standing.subscribe();
        let trusted = standing.wait_for(|standing| standing.is_trusted(self.0.trusted_for));
        trusted.await.expect("the sender lives in self");
    }

    /// Rows may be owned by this identity that are in no memory. The one cure for every doubt: the
    /// identity ends once nothing is in flight, and a new one is taken. What is in memory belongs to
    /// the old identity, is dropped where it is met and claimed again.
    pub fn doubt(&self) {
        self.0.standing.send_modify(|standing| standing.in_doubt = true);
        self.0.doubted.notify_one();
    }

    /// As [`Instance::doubt`]; returns when the identity has been replaced.
    pub async fn replaced_after_doubt(&self, doubted: InstanceId) {
        let mut standing = self.0.standing.subscribe();
        self.doubt();
        standing.wait_for(|standing| standing.id != doubted).await.expect("the sender lives in self");
    }

    /// Until there are rows that nobody living owns.
    pub async fn left_behind(&self) {
        self.0.left_behind.notified().await;
    }

    /// Hands everything that this process still owns over to others, in one statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn end(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut connection = pool.acquire().await?;
        identity::end(&mut connection, self.id()).await.map(drop)
    }

    fn confirm(&self, confirmed_at: Instant) {
        self.0.standing.send_modify(|standing| standing.confirmed_at = Some(confirmed_at));
    }

    fn is_in_doubt(&self) -> bool {
        self.0.standing.borrow().in_doubt
    }

    /// Whatever was confirmed before counts no more.
    fn distrust(&self) {
        self.0.standing.send_modify(|standing| standing.confirmed_at = None);
    }

    fn replace(&self, id: InstanceId, confirmed_at: Instant) {
        self.0.standing.send_replace(Standing { id, confirmed_at: Some(confirmed_at), in_doubt: false });
    }
}

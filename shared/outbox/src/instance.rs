//! Who this process is to the outbox, and how anybody knows that it is alive.
//!
//! Every process takes a new identity and holds an advisory lock on it, on a connection of its own:
//! the held lock is the proof of life. A paused process keeps it, a killed one loses it at once. An identity
//! writes a log and sends it; what is left in the log of one that has ended is sent by another. [`session`]
//! has the steps; here is what the other tasks see of them.

mod identity;
pub mod publishing;
pub mod session;

use shared::runtime::database::Pool;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use uuid::{NoContext, Timestamp, Uuid};

use crate::{instance_id::InstanceId, log::own::OwnLog, metrics::PAUSED};

/// The identity that this process has now.
#[derive(Clone, Debug)]
pub struct Instance(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    current: watch::Sender<CurrentIdentity>,
    /// How old a confirmation may be when a message is handed over: half of what others wait before
    /// they take over, so that a hand-over is long past when they do.
    trusted_for: Duration,
    doubted: Notify,
    left_behind: Notify,
    /// An operator wants nothing to be announced; none until the first look.
    paused: watch::Sender<Option<bool>>,
    clock: Clock,
}

/// An identity, and when its lock was last known to be held.
#[derive(Clone, Debug)]
struct CurrentIdentity {
    log: Arc<OwnLog>,
    /// None while it is being replaced.
    confirmed_at: Option<Instant>,
    /// There may be more in its log than this process knows, or less.
    in_doubt: bool,
}

impl CurrentIdentity {
    fn new(id: InstanceId, confirmed_at: Instant, not_before: OffsetDateTime) -> Self {
        Self { log: OwnLog::new(id, not_before), confirmed_at: Some(confirmed_at), in_doubt: false }
    }

    fn is_trusted(&self, trusted_for: Duration) -> bool {
        self.confirmed_at.is_some_and(|at| at.elapsed() < trusted_for)
    }
}

/// The database's clock, as the session's looks bring it. References are drawn by it: the partition that
/// one belongs to is there, whatever the clock of this host says.
#[derive(Debug)]
struct Clock {
    at: Mutex<(Instant, OffsetDateTime)>,
    /// In milliseconds since 1970: from then on there are no partitions yet.
    end: AtomicI64,
}

impl Clock {
    fn now(&self) -> OffsetDateTime {
        let (asked_at, answer) = *self.at.lock().expect("nothing panics with the lock in hand");
        answer + asked_at.elapsed()
    }
}

impl Instance {
    fn new(taken: &identity::Taken, confirmed_at: Instant, takeover_after: Duration) -> Self {
        let identity::Taken { id, now, not_before } = *taken;
        Self(Arc::new(Shared {
            current: watch::Sender::new(CurrentIdentity::new(id, confirmed_at, not_before)),
            trusted_for: takeover_after / 2,
            doubted: Notify::new(),
            left_behind: Notify::new(),
            paused: watch::Sender::new(None),
            clock: Clock { at: Mutex::new((confirmed_at, now)), end: AtomicI64::new(i64::MAX) },
        }))
    }

    #[must_use]
    pub fn id(&self) -> InstanceId {
        self.0.current.borrow().log.log.id
    }

    /// The log that this process writes now.
    #[must_use]
    pub fn log(&self) -> Arc<OwnLog> {
        Arc::clone(&self.0.current.borrow().log)
    }

    /// The database's clock, as far as it is known here.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        self.0.clock.now()
    }

    /// A new reference of a message: a UUIDv7 by the database's clock, within the partitions there are.
    #[must_use]
    pub fn reference(&self) -> Uuid {
        let now = self.0.clock.now();
        let end = self.0.clock.end.load(Ordering::Relaxed);
        let millis = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0).min(end.saturating_sub(1));
        let (seconds, rest) = (millis.max(0).unsigned_abs() / 1000, millis.max(0).unsigned_abs() % 1000);
        let nanos = u32::try_from(rest * 1_000_000).expect("below a second");
        Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos))
    }

    /// From this moment on there are no partitions yet.
    pub fn partitions_end_at(&self, end: OffsetDateTime) {
        let millis = i64::try_from(end.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX);
        self.0.clock.end.store(millis, Ordering::Relaxed);
    }

    /// The identity, if its lock was confirmed so lately that nobody can have taken over.
    #[must_use]
    pub fn confirmed(&self) -> Option<InstanceId> {
        let current = self.0.current.borrow();
        current.is_trusted(self.0.trusted_for).then_some(current.log.log.id)
    }

    /// Until the lock is confirmed.
    pub async fn confirmation(&self) {
        let mut current = self.0.current.subscribe();
        let trusted = current.wait_for(|current| current.is_trusted(self.0.trusted_for));
        trusted.await.expect("the sender lives in self");
    }

    /// This process may not know what is in its log, or what it holds. The one cure for every doubt: the
    /// identity ends once nothing is in flight, and a new one is taken. What is in memory belongs to the old
    /// identity, is dropped where it is met and read again by whoever adopts its log.
    pub fn doubt(&self) {
        self.0.current.send_modify(|current| current.in_doubt = true);
        self.0.doubted.notify_one();
    }

    /// Until this process has another identity than `before`.
    pub async fn replaced(&self, before: InstanceId) {
        let mut current = self.0.current.subscribe();
        let other = current.wait_for(|current| current.log.log.id != before);
        other.await.expect("the sender lives in self");
    }

    /// Until another identity was found to have ended.
    pub async fn left_behind(&self) {
        self.0.left_behind.notified().await;
    }

    /// Hands everything that this process has not sent over to others, in one statement.
    ///
    /// # Errors
    /// The database's.
    pub async fn end(&self, pool: &Pool) -> Result<(), sqlx::Error> {
        let mut connection = pool.acquire().await?;
        let ended = identity::end(&mut connection, self.id()).await;
        connection.end_with(&ended);
        ended.map(drop)
    }

    fn confirm(&self, confirmed_at: Instant, now: OffsetDateTime) {
        *self.0.clock.at.lock().expect("nothing panics with the lock in hand") = (confirmed_at, now);
        self.0.current.send_modify(|current| current.confirmed_at = Some(confirmed_at));
    }

    /// Whether announcing is paused, as far as the last look has told. Before the first it may be.
    #[must_use]
    pub fn may_be_paused(&self) -> bool {
        *self.0.paused.borrow() != Some(false)
    }

    /// Whether an operator has paused announcing.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.0.paused.borrow() == Some(true)
    }

    /// Until a look has told that announcing is not paused.
    pub async fn resumed(&self) {
        let mut paused = self.0.paused.subscribe();
        let resumed = paused.wait_for(|paused| *paused == Some(false));
        resumed.await.expect("the sender lives in self");
    }

    fn note_pause(&self, is_paused: bool) {
        PAUSED.set(if is_paused { 1.0 } else { 0.0 });
        let before = self.0.paused.send_replace(Some(is_paused));
        if before.unwrap_or(false) != is_paused {
            tracing::warn!(is_paused, "whether announcing is paused has changed");
        }
    }

    fn is_in_doubt(&self) -> bool {
        self.0.current.borrow().in_doubt
    }

    /// Whatever was confirmed before counts no more.
    fn distrust(&self) {
        self.0.current.send_modify(|current| current.confirmed_at = None);
    }

    fn replace(&self, taken: &identity::Taken, confirmed_at: Instant) {
        // The server may be another one by now, which does not know what was told: this process does.
        let not_before = taken.not_before.max(self.log().not_before());
        self.0.current.send_replace(CurrentIdentity::new(taken.id, confirmed_at, not_before));
    }
}

/// Whether an identity has ended, as the database has it.
///
/// # Errors
/// The database's.
pub async fn has_ended(connection: &mut sqlx::PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    identity::has_ended(connection, id).await
}

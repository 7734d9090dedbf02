//! Pools of connections, of which every use ends: with an answer, or with the connection.
//!
//! A host that has vanished resets nothing, and sqlx has no say in its sockets' keepalive. So no answer is waited for
//! longer than a limit. A statement that nobody waits for any more may still be under way in the server: a COMMIT that
//! waits for a standby ends by no time-out and by no closed connection. So its connection keeps its place in the pool
//! until the server has answered, or says on another connection that it is with nothing of the kind any more. There are
//! never more sessions than the pool may have.

use std::{
    collections::VecDeque,
    fmt,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{
    TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection, Describe, Either, Execute, Executor, PgConnection, Postgres, Row, TransactionManager,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo},
};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{backoff, no_answer, pooler::Way, server, standby, takes_writes};
use crate::runtime::health::{TaskStatus, TimedOut};

/// A connection idle for longer is asked whether it still lives before it is used: after an outage
/// every pooled connection is dead, under load none is ever asked.
const TRUSTED_WHILE_IDLE: Duration = Duration::from_secs(1);
/// How long that answer may take: several may be dead, one after the other.
const ANSWERS_WITHIN: Duration = Duration::from_millis(250);
/// How long a connection is kept: by this one a pool gives back what a burst has taken, and reads, the session or another
/// instance may need. To connect again takes milliseconds. The last one of a pool is kept: where fewer are permitted than are
/// wanted, others would take its place.
const KEPT_FOR: Duration = Duration::from_mins(1);
/// How often it is looked whether one has come of age.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
/// How long the end of a connection may take that the server is told of.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// How often it is asked whether the server is still with a statement that nobody waits for, and how long that may take:
/// a host that was away is used again so soon after its return.
const ASKED_EVERY: Duration = Duration::from_secs(1);
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// What a pool is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// How long a free connection is waited for.
    pub patience: Duration,
    /// How long the answer to one statement is: longer than the server lets one run.
    pub limit: Duration,
    /// What each session is told.
    pub session: &'static str,
}

/// Connections to the database. As an executor it carries out one statement on one of them.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Connections>);

struct Connections {
    options: Mutex<PgConnectOptions>,
    kind: Kind,
    way: Arc<OnceCell<Way>>,
    size: u32,
    /// One for each connection that is lent, or that the server may be at work on.
    permits: Arc<Semaphore>,
    /// Never more than there are permits left: who has one takes an idle connection before it makes one.
    idle: Mutex<VecDeque<Connected>>,
    /// One question at a time whether the server is at work: it takes a connection beside the pool.
    asking: tokio::sync::Mutex<()>,
    /// Of the process. A connection ends with the runtime on which it is made, and a worker of the HTTP server has one of its
    /// own, which ends in the drain.
    runtime: Handle,
}

struct Connected {
    connection: PgConnection,
    backend: Backend,
    since: Instant,
    idle_since: Instant,
}

/// The process of the server behind a connection.
#[derive(Clone, Copy, Debug)]
pub struct Backend(i32);

impl Pool {
    /// One of at most `size` connections, which connects when it is first used.
    pub(super) fn new(options: PgConnectOptions, size: u32, kind: Kind, way: Arc<OnceCell<Way>>) -> Self {
        let connections = Arc::new(Connections {
            options: Mutex::new(options),
            kind,
            way,
            size,
            permits: Arc::new(Semaphore::new(size as usize)),
            idle: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            runtime: Handle::current(),
        });
        tokio::spawn(close_the_old(Arc::downgrade(&connections)));
        Self(connections)
    }

    /// From now on new connections are made with `options`, under the name that they had before.
    pub(super) fn connect_with(&self, options: PgConnectOptions) {
        let mut now = self.0.options();
        *now = match now.get_application_name() {
            Some(name) => options.application_name(name),
            None => options,
        };
    }

    /// A connection for several statements.
    ///
    /// # Errors
    /// None is free in time, or the database cannot be reached.
    pub async fn acquire(&self) -> Result<Lease, sqlx::Error> {
        let deadline = Instant::now() + self.0.kind.patience;
        let permit = timeout_at(deadline, Arc::clone(&self.0.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut last = sqlx::Error::PoolTimedOut;
        let connecting = async {
            // A server that restarts, or has no room for a moment, is tried again.
            for pause in backoff() {
                while let Some(mut idle) = self.0.take_idle() {
                    if idle.is_usable(self.0.is_last()).await {
                        return idle;
                    }
                    idle.close();
                }
                match self.0.connected().await {
                    Ok(connected) => return connected,
                    Err(error) => last = error,
                }
                sleep(pause).await;
            }
            unreachable!("the back-off never ends")
        };
        match timeout_at(deadline, connecting).await {
            Ok(connected) => Ok(Lease::of(self, connected, permit)),
            Err(_) => Err(last),
        }
    }

    /// A connection that is idle now.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Lease> {
        let permit = Arc::clone(&self.0.permits).try_acquire_owned().ok()?;
        Some(Lease::of(self, self.0.take_idle()?, permit))
    }

    /// A transaction. Whoever awaits its statements limits them together.
    ///
    /// # Errors
    /// As for [`Pool::acquire`], and the database's.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let mut lease = self.acquire().await?;
        match timeout(self.limit(), PgTransactionManager::begin(&mut lease, None)).await {
            Ok(begun) => begun.map(|()| Transaction(lease)),
            Err(_) => Err(no_answer()),
        }
    }

    /// Awaits the answer to what `backend` was asked: for `limit`, as a piece of work of a task, and beyond that for as
    /// long as the server is at it. The same again would wait for it, on one more connection each time.
    ///
    /// # Errors
    /// Its own; and a lost answer where the server is not at it any more.
    pub async fn until_answered<T>(
        &self,
        status: &TaskStatus,
        limit: Duration,
        backend: Backend,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let mut answer = pin!(answer);
        loop {
            let late = match status.busy(limit, async { Ok::<_, TimedOut>(answer.as_mut().await) }).await {
                Ok(answer) => return answer,
                Err(late) => late,
            };
            if self.is_at_work(backend).await == Some(false) {
                // It may have come just now.
                return status.busy(ANSWERS_WITHIN, answer).await;
            }
            status.failing(late, "the database does not come to the end of a statement; waiting for it");
        }
    }

    /// Whether the server is with a statement of that backend. None where it cannot be asked.
    async fn is_at_work(&self, Backend(backend): Backend) -> Option<bool> {
        let _one_at_a_time = self.0.asking.lock().await;
        let options = self.0.options().clone();
        let asking = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            // Not prepared, for poolers; of its own role everybody sees the state.
            let question = format!(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend} AND state NOT LIKE 'idle%')"
            );
            let is_at_work = connection.fetch_one(question.as_str()).await?.try_get(0)?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(is_at_work)
        };
        timeout(ASKED_WITHIN, asking).await.ok()?.ok()
    }

    fn limit(&self) -> Duration {
        self.0.kind.limit
    }

    /// How many connections there are, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (idle, free) = (number(self.0.idle().len()), number(self.0.permits.available_permits()));
        (self.0.size.saturating_sub(free) + idle, idle)
    }

    /// Whether it has a connection, at work or not, or can have one.
    pub async fn has_any(&self) -> bool {
        let (all, idle) = self.size();
        let asking = async {
            let mut lease = self.acquire().await?;
            let answer = takes_writes(&mut lease).await;
            lease.end_with(&answer);
            answer
        };
        all > idle || matches!(timeout(ASKED_WITHIN, asking).await, Ok(Ok(true)))
    }

    #[must_use]
    pub fn max_size(&self) -> u32 {
        self.0.size
    }
}

impl Connections {
    async fn connected(self: &Arc<Self>) -> Result<Connected, sqlx::Error> {
        let connections = Arc::clone(self);
        let connecting = self.runtime.spawn(async move { connections.connect().await });
        AbortOnDropHandle::new(connecting).await.map_err(|_| sqlx::Error::PoolClosed)?
    }

    async fn connect(&self) -> Result<Connected, sqlx::Error> {
        let is_lent = self.is_lent().await?;
        let options = self.options().clone();
        let mut connection = PgConnection::connect_with(&options).await?;
        // What a lent session is told others would find. A server that is too old does not know all of it: what is asked next
        // is its version.
        if !is_lent && !server::is_too_old(connection.server_version_num()) {
            connection.execute(self.kind.session).await?;
        }
        // Not prepared, for poolers.
        let row = connection.fetch_one("SELECT pg_is_in_recovery(), pg_backend_pid()").await?;
        if row.try_get(0)? {
            return Err(standby());
        }
        let now = Instant::now();
        Ok(Connected { connection, backend: Backend(row.try_get(1)?), since: now, idle_since: now })
    }

    /// Whether a pooler lends the session. Where there is no room to find out it is taken for none, and looked at again.
    async fn is_lent(&self) -> Result<bool, sqlx::Error> {
        let options = self.options().clone();
        let seeing = || async { Way::of(&options).await.map_err(Some)?.ok_or(None) };
        match self.way.get_or_try_init(seeing).await {
            Ok(way) => Ok(way.lends_sessions),
            Err(None) => Ok(false),
            Err(Some(error)) => Err(error),
        }
    }

    /// Whether the one that is being lent is the only one there is.
    fn is_last(&self) -> bool {
        self.size as usize - self.permits.available_permits() == 1 && self.idle().is_empty()
    }

    fn take_idle(&self) -> Option<Connected> {
        self.idle().pop_front()
    }

    fn options(&self) -> MutexGuard<'_, PgConnectOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Connected>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options have the password.
        f.debug_struct("Connections").field("kind", &self.kind).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Connected {
    fn is_old(&self) -> bool {
        self.since.elapsed() > KEPT_FOR
    }

    async fn is_usable(&mut self, is_last: bool) -> bool {
        let is_trusted = self.idle_since.elapsed() <= TRUSTED_WHILE_IDLE;
        (is_last || !self.is_old())
            && (is_trusted || matches!(timeout(ANSWERS_WITHIN, takes_writes(&mut self.connection)).await, Ok(Ok(true))))
    }

    fn close(self) {
        tokio::spawn(timeout(CLOSED_WITHIN, self.connection.close()));
    }
}

/// For as long as the pool is there: a connection that nobody needs is not kept for longer than others.
async fn close_the_old(pool: Weak<Connections>) {
    loop {
        sleep(LOOKED_AT_EVERY).await;
        let Some(pool) = pool.upgrade() else { break };
        let old = {
            let mut idle = pool.idle();
            let (mut old, mut young): (VecDeque<_>, VecDeque<_>) = idle.drain(..).partition(Connected::is_old);
            if young.is_empty() && pool.permits.available_permits() == pool.size as usize {
                young.extend(old.pop_back());
            }
            *idle = young;
            old
        };
        old.into_iter().for_each(Connected::close);
    }
}

/// A connection that the pool has lent. Only [`Lease::end`] gives it back; dropped, it is closed as soon as the server
/// is not at work on it.
#[derive(Debug)]
pub struct Lease(Option<Lent>);

struct Lent {
    pool: Pool,
    connected: Connected,
    permit: OwnedSemaphorePermit,
}

/// Why a lease always has its connection.
const HELD: &str = "only what consumes the lease takes its connection";

impl Lease {
    fn of(pool: &Pool, connected: Connected, permit: OwnedSemaphorePermit) -> Self {
        Self(Some(Lent { pool: pool.clone(), connected, permit }))
    }

    /// Gives the connection back: nothing that was asked of it is without an answer.
    pub fn end(mut self) {
        if let Some(Lent { pool, mut connected, permit }) = self.0.take() {
            connected.idle_since = Instant::now();
            pool.0.idle().push_back(connected);
            drop(permit);
        }
    }

    /// Gives it back if this was an answer, of whatever kind, and the session goes on and is what it should be.
    pub fn end_with<T>(self, answer: &Result<T, sqlx::Error>) {
        if answer.as_ref().err().is_none_or(|error| super::is_rolled_back(error) && !super::is_of_the_session(error)) {
            self.end();
        }
    }

    /// A connection that is the pool's no more.
    #[must_use]
    pub fn detach(mut self) -> PgConnection {
        self.0.take().expect(HELD).connected.connection
    }

    #[must_use]
    pub fn backend(&self) -> Backend {
        self.0.as_ref().expect(HELD).connected.backend
    }
}

impl Lent {
    /// Keeps the place in the pool for as long as the server may be at work.
    async fn give_up(self) {
        let Self { pool, connected: Connected { mut connection, backend, .. }, permit } = self;
        let answered = async {
            // Behind whatever is left of the answer; where that is an error it has come, too.
            drop(connection.ping().await);
            drop(connection.close().await);
        };
        {
            let mut answered = pin!(answered);
            while timeout(ASKED_EVERY, &mut answered).await.is_err() && pool.is_at_work(backend).await != Some(false) {}
        }
        drop(permit);
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("backend", &self.connected.backend).finish_non_exhaustive()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(lent) = self.0.take() {
            // Where that runtime has ended, the process does, and its connections with it.
            let runtime = lent.pool.0.runtime.clone();
            runtime.spawn(lent.give_up());
        }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0.as_ref().expect(HELD).connected.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0.as_mut().expect(HELD).connected.connection
    }
}

/// A transaction. Dropped without its end, the connection is closed, which rolls it back.
#[derive(Debug)]
pub struct Transaction(Lease);

impl Transaction {
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.0.backend()
    }

    /// # Errors
    /// The database's. Nobody knows then whether it is committed.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let answer = PgTransactionManager::commit(&mut self.0).await;
        self.0.end_with(&answer);
        answer
    }

    /// # Errors
    /// The database's.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        let answer = PgTransactionManager::rollback(&mut self.0).await;
        self.0.end_with(&answer);
        answer
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

impl<'p> Executor<'p> for &Pool {
    type Database = Postgres;

    /// What is read by one statement is read to its end before the first row is given out.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        let reading = async move {
            let mut lease = pool.acquire().await?;
            let all = lease.fetch_many(query).try_collect::<Vec<_>>();
            let answer = timeout(pool.limit(), all).await.unwrap_or_else(|_| Err(no_answer()));
            lease.end_with(&answer);
            answer.map(|all| stream::iter(all.into_iter().map(Ok)))
        };
        Box::pin(stream::once(reading).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lease = pool.acquire().await?;
            let answer = timeout(pool.limit(), lease.fetch_optional(query)).await.unwrap_or_else(|_| Err(no_answer()));
            lease.end_with(&answer);
            answer
        })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, sqlx::Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lease = pool.acquire().await?;
            let preparing = lease.prepare_with(sql, parameters);
            let answer = timeout(pool.limit(), preparing).await.unwrap_or_else(|_| Err(no_answer()));
            lease.end_with(&answer);
            answer
        })
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut lease = pool.acquire().await?;
            let answer = timeout(pool.limit(), lease.describe(sql)).await.unwrap_or_else(|_| Err(no_answer()));
            lease.end_with(&answer);
            answer
        })
    }
}

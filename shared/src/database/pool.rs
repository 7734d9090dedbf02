//! Pools of connections, of which every use ends: with an answer, or with the connection.
//!
//! A host that has vanished resets nothing, and sqlx has no say in its sockets' keepalive. So no answer is waited for
//! longer than a limit, and a connection without one is closed where it is: given back it would be pinged without a
//! limit, and its place in the pool would be gone for as long as TCP goes on trying, a quarter of an hour.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use futures_util::{
    TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, TransactionManager,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo},
};
use tokio::time::timeout;

use super::{no_answer, standby, takes_writes};

/// A connection idle for longer is asked whether it still lives before it is used: after an outage
/// every pooled connection is dead, under load none is ever asked.
const TRUSTED_WHILE_IDLE: Duration = Duration::from_secs(1);
/// How long that answer may take, and that of one that is given back: several may be dead, one after the other.
const ANSWERS_WITHIN: Duration = Duration::from_millis(250);
const RETURNED_WITHIN: Duration = Duration::from_secs(1);
/// How long a connection is kept. A pool uses its connections in turn, so that none is idle for long, however little it
/// has to do: by this one it gives back what a burst has taken, and reads, the session or another instance may need.
/// To connect again takes milliseconds.
const KEPT_FOR: Duration = Duration::from_mins(1);

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
pub struct Pool {
    connections: PgPool,
    limit: Duration,
}

impl Pool {
    /// One of at most `size` connections, which connects when it is first used.
    pub(super) fn new(options: PgConnectOptions, size: u32, kind: Kind) -> Self {
        let Kind { patience, limit, session } = kind;
        let pool = PgPoolOptions::new()
            .max_connections(size)
            // A pool of one would be shut while sqlx makes it anew, with pauses of up to a minute.
            .min_connections(u32::from(size > 1))
            .max_lifetime(KEPT_FOR)
            .acquire_timeout(patience)
            // Asking before each use costs a round trip per statement: a quarter of the reads.
            .test_before_acquire(false)
            .before_acquire(|connection, met| {
                Box::pin(async move {
                    let asking = timeout(ANSWERS_WITHIN, takes_writes(connection));
                    Ok(met.idle_for <= TRUSTED_WHILE_IDLE || matches!(asking.await, Ok(Ok(true))))
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    connection.execute(session).await?;
                    if takes_writes(connection).await? { Ok(()) } else { Err(standby()) }
                })
            });
        Self { connections: pool.connect_lazy_with(options), limit }
    }

    /// From now on new connections are made with `options`, under the name that they had before.
    pub(super) fn connect_with(&self, options: PgConnectOptions) {
        let before = self.connections.connect_options();
        self.connections.set_connect_options(match before.get_application_name() {
            Some(name) => options.application_name(name),
            None => options,
        });
    }

    /// A connection for several statements.
    ///
    /// # Errors
    /// None is free in time, or the database cannot be reached.
    pub async fn acquire(&self) -> Result<Lease, sqlx::Error> {
        self.connections.acquire().await.map(Lease::of)
    }

    /// A connection that is idle now.
    #[must_use]
    pub fn try_acquire(&self) -> Option<Lease> {
        self.connections.try_acquire().map(Lease::of)
    }

    /// A transaction. Whoever awaits its statements limits them together.
    ///
    /// # Errors
    /// As for [`Pool::acquire`], and the database's.
    pub async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let mut lease = self.acquire().await?;
        match timeout(self.limit, PgTransactionManager::begin(&mut lease, None)).await {
            Ok(begun) => begun.map(|()| Transaction(lease)),
            Err(_) => Err(no_answer()),
        }
    }

    /// How many connections there are, and how many of them are idle.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.connections.size(), u32::try_from(self.connections.num_idle()).unwrap_or(u32::MAX))
    }

    #[must_use]
    pub fn max_size(&self) -> u32 {
        self.connections.options().get_max_connections()
    }
}

/// A connection that the pool has lent. Dropped, it is closed; only [`Lease::end`] gives it back.
#[derive(Debug)]
pub struct Lease(Option<PoolConnection<Postgres>>);

/// Why a lease always has its connection.
const HELD: &str = "only what consumes the lease takes its connection";

impl Lease {
    fn of(connection: PoolConnection<Postgres>) -> Self {
        Self(Some(connection))
    }

    /// Gives the connection back: nothing that was asked of it is without an answer.
    pub fn end(mut self) {
        if let Some(mut connection) = self.0.take() {
            // sqlx pings it first.
            tokio::spawn(timeout(RETURNED_WITHIN, connection.return_to_pool()));
        }
    }

    /// Gives it back if this was an answer, of whatever kind, and the session goes on.
    pub fn end_with<T>(self, answer: &Result<T, sqlx::Error>) {
        if answer.as_ref().err().is_none_or(super::is_rolled_back) {
            self.end();
        }
    }

    /// A connection that is the pool's no more.
    #[must_use]
    pub fn detach(mut self) -> PgConnection {
        self.0.take().expect(HELD).detach()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect(HELD)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect(HELD)
    }
}

/// A transaction. Dropped without its end, the connection is closed, which rolls it back.
#[derive(Debug)]
pub struct Transaction(Lease);

impl Transaction {
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
            let answer = timeout(pool.limit, all).await.unwrap_or_else(|_| Err(no_answer()));
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
            let answer = timeout(pool.limit, lease.fetch_optional(query)).await.unwrap_or_else(|_| Err(no_answer()));
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
            let answer = timeout(pool.limit, preparing).await.unwrap_or_else(|_| Err(no_answer()));
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
            let answer = timeout(pool.limit, lease.describe(sql)).await.unwrap_or_else(|_| Err(no_answer()));
            lease.end_with(&answer);
            answer
        })
    }
}

//! Connections to Postgres: what they are told, who has how many, and how long anybody waits for one.

mod address;
mod failure;
mod ownership;
mod pool;
mod pooler;
mod privileges;
mod renewal;
mod schema;
mod server;
mod url;

use std::{sync::Arc, time::Duration};

pub use address::Address;
use anyhow::Context;
use failure::is_of_the_session;
pub use failure::{Failure, OwnFinding, has_no_partition, has_too_many, is_forbidden, is_missing, is_rolled_back};
pub use ownership::Tables;
use pool::Kind;
pub use pool::{Lease, Pool, Transaction};
use pooler::Way;
pub use pooler::is_session;
pub use renewal::PasswordRenewal;
use schema::has_schema;
pub use schema::{Migrate, may_work, migrate, schema_fits, shortcoming};
use sqlx::{Connection, Executor, PgConnection, Row, migrate::Migrator, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

use crate::runtime::{config::Reader, health::limited};

/// How long background work waits for a free connection before it counts as an outage.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(2);
/// How long a request may wait for a free connection before the answer is 503: others wait behind it.
pub(crate) const REQUESTS_ACQUIRE_WITHIN: Duration = Duration::from_secs(1);
/// How long a command waits for the database before it tells that it is away.
const COMMANDS_CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// No commit is answered that a crash could take back, or a promotion of the synchronous standby: what the role or the
/// database was given is raised where it promises less.
macro_rules! durable {
    () => {
        "SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
    };
}

/// For connections outside of pools.
pub const DURABLE: &str = durable!();

/// What every pooled session is told, where it is not lent by a pooler.
///
/// No statement of the work runs for 10 s: one that does holds locks nobody will release. A caller waits
/// for 2.5 s, so a request's statement is ended soon enough to give its connection back. No plan depends on what
/// the statistics happened to say, and none is compiled: by default that takes a third of Postgres's CPU and
/// gains nothing for statements as short as these. The level of isolation is that which the statements are made for,
/// whatever the database's default is: with an older snapshot a fence would not see the end of its identity.
///
/// A client that vanished is given up within 10 s: what it has locked others wait for.
macro_rules! session {
    ($statement_timeout:literal) => {
        concat!(
            "SET statement_timeout = '",
            $statement_timeout,
            "'; SET idle_in_transaction_session_timeout = '10s'; SET idle_session_timeout = 0; SET plan_cache_mode = force_generic_plan; SET jit = off; \
             SET default_transaction_isolation = 'read committed'; SET tcp_keepalives_idle = 4; \
             SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '10s'; ",
            durable!()
        )
    };
}

const WORK: Kind = Kind { patience: ACQUIRE_WITHIN, limit: Duration::from_secs(11), session: session!("10s") };
const REQUESTS: Kind =
    Kind { patience: REQUESTS_ACQUIRE_WITHIN, limit: Duration::from_millis(2_500), session: session!("2s") };
/// Some commands have much to do, and whoever waits for one may end it. On a large table a time-out would only have them begin
/// again.
const COMMANDS: Kind = Kind { patience: ACQUIRE_WITHIN, limit: Duration::from_hours(24), session: session!("0") };

#[derive(Clone, Debug)]
pub struct Settings {
    pub address: Address,
    pub max_connections: u32,
    /// What stands before the database, once somebody has looked.
    way: Arc<OnceCell<Way>>,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        Self {
            address: Address::read(settings, "database.url"),
            max_connections: settings.within("database.max_connections", 2..=1000, "from 2 to 1000"),
            way: Arc::default(),
        }
    }

    /// The pool of the work itself, which connects when it is first used. No request can take its
    /// connections: reads that hang do not keep a message from being marked. It has two thirds of all,
    /// because by default the tasks of order-service use ten at the same time at most.
    ///
    /// # Errors
    /// The URL does not parse.
    pub fn pool(&self, application: &str) -> anyhow::Result<Pool> {
        self.part(application, self.max_connections - self.for_requests(), WORK)
    }

    /// The pool of requests, with the rest.
    ///
    /// # Errors
    /// The URL does not parse.
    pub fn request_pool(&self, application: &str) -> anyhow::Result<Pool> {
        self.part(application, self.for_requests(), REQUESTS)
    }

    /// The pool of a command.
    ///
    /// # Errors
    /// The URL does not parse.
    pub fn command_pool(&self, application: &str) -> anyhow::Result<Pool> {
        self.part(application, self.max_connections, COMMANDS)
    }

    fn for_requests(&self) -> u32 {
        (self.max_connections / 3).max(1)
    }

    fn part(&self, application: &str, size: u32, kind: Kind) -> anyhow::Result<Pool> {
        let options = self.address.options()?.application_name(application);
        Ok(Pool::new(options, size, kind, Arc::clone(&self.way)))
    }
}

/// Whether this is a connection to a primary. After a switchover an address may lead to a server that is a standby by now,
/// where each write would fail.
async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Not prepared: a pooler that cannot do that is told apart later.
    connection.fetch_one("SELECT NOT pg_is_in_recovery()").await?.try_get(0)
}

fn standby() -> sqlx::Error {
    OwnFinding::Unfit("the server is a standby: it takes no writes".into()).into()
}

/// A connection of its own, outside the pool.
///
/// # Errors
/// The database's.
pub async fn connect(address: &Address, application: &str) -> Result<PgConnection, sqlx::Error> {
    connect_with(&address.options()?.application_name(application)).await
}

async fn connect_with(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    if takes_writes(&mut connection).await? { Ok(connection) } else { Err(standby()) }
}

/// Warns where fewer connections are permitted than `wanted`.
///
/// # Errors
/// The database's.
pub async fn compare_limits(pool: &Pool, wanted: u32) -> Result<(), sqlx::Error> {
    // Of these -1 is any number; a superuser is not limited but by the server.
    let permitted: i64 = sqlx::query_scalar(
        "SELECT min(permitted) FROM (
            SELECT current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
                - coalesce(current_setting('reserved_connections', true)::bigint, 0)
            UNION ALL SELECT datconnlimit FROM pg_database WHERE datname = current_database()
            UNION ALL SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user
        ) AS limits (permitted) WHERE permitted >= 0",
    )
    .fetch_one(pool)
    .await?;
    if permitted < i64::from(wanted) {
        tracing::warn!(
            permitted,
            wanted,
            "fewer connections are permitted than this instance wants: lower database.max_connections, or raise the limit \
             of the server, the database or the role"
        );
    }
    Ok(())
}

/// Whether statements are answered, soon, by a primary that has the schema: while a backup is restored there may be none.
pub async fn is_usable(pool: &Pool, needed: &Migrator) -> bool {
    let asking = async {
        let mut connection = pool.acquire().await?;
        let usable = takes_writes(&mut connection).await? && has_schema(&mut connection, needed).await?;
        connection.end();
        Ok::<_, sqlx::Error>(usable)
    };
    matches!(tokio::time::timeout(ACQUIRE_WITHIN, asking).await, Ok(Ok(true)))
}

/// The pause between attempts at something that is out of reach.
pub fn backoff() -> impl Iterator<Item = Duration> + Send {
    crate::runtime::backoff::backoff(Duration::from_millis(50), Duration::from_secs(2))
}

/// The connection of a command, which does not wait for an outage to end.
///
/// # Errors
/// Where the database is, and why it cannot be reached.
pub async fn reach(settings: &Settings) -> anyhow::Result<PgConnection> {
    let options = settings.address.options()?;
    let place = format!("the database at {}:{} cannot be reached", options.get_host(), options.get_port());
    let connecting = tokio::time::timeout(COMMANDS_CONNECT_WITHIN, PgConnection::connect_with(&options)).await;
    connecting.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))).context(place)
}

/// Awaits an answer of the database for about `limit` of the time in which this process runs.
///
/// # Errors
/// The statement's own, and a lost answer: the statement may still be carried out.
pub async fn within<T>(
    limit: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    limited(limit, statement).await.unwrap_or_else(|| Err(no_answer()))
}

fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))
}

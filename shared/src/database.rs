//! The pool, the schema, and what an error of the database means for whoever gets it.

mod address;
mod ownership;
mod pool;
mod pooler;
mod privileges;
mod renewal;
mod server;
mod url;

use std::time::Duration;

pub use address::Address;
use anyhow::Context;
use clap::Args;
pub use ownership::Tables;
use pool::Kind;
pub use pool::{Lease, Pool, Transaction};
pub use pooler::{is_session, keeps_prepared_statements};
pub use renewal::PasswordRenewal;
use sqlx::{
    Connection, Executor, PgConnection, Row,
    migrate::Migrator,
    postgres::{PgDatabaseError, PgSeverity},
};

use crate::{
    config::Reader,
    health::{TaskStatus, limited},
};

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

/// What every pooled session is told.
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

/// What a migration is told, whatever the role or the database was given: a backslash is a backslash, and a large table takes
/// its time. A `lock_timeout` stays: it keeps others from waiting behind a migration that waits.
const MIGRATION: &str = "SET standard_conforming_strings = on; SET statement_timeout = 0";

const WORK: Kind = Kind { patience: ACQUIRE_WITHIN, limit: Duration::from_secs(11), session: session!("10s") };
const REQUESTS: Kind =
    Kind { patience: REQUESTS_ACQUIRE_WITHIN, limit: Duration::from_millis(2_500), session: session!("2s") };

#[derive(Clone, Debug)]
pub struct Settings {
    pub address: Address,
    pub max_connections: u32,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        Self {
            address: Address::read(settings, "database.url"),
            max_connections: settings.within("database.max_connections", 2..=1000, "from 2 to 1000"),
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

    fn for_requests(&self) -> u32 {
        (self.max_connections / 3).max(1)
    }

    fn part(&self, application: &str, size: u32, kind: Kind) -> anyhow::Result<Pool> {
        Ok(Pool::new(self.address.options()?.application_name(application), size, kind))
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
    let mut connection = PgConnection::connect_with(&address.options()?.application_name(application)).await?;
    if takes_writes(&mut connection).await? { Ok(connection) } else { Err(standby()) }
}

/// Whether the server refuses a connection because there are as many as it, the database or the role permits.
#[must_use]
pub fn has_too_many(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|answer| answer.code().as_deref() == Some("53300"))
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
    crate::backoff::backoff(Duration::from_millis(50), Duration::from_secs(2))
}

/// Waits until the database answers.
pub async fn reached(pool: &Pool, status: &TaskStatus) {
    for pause in backoff() {
        match sqlx::raw_sql("SELECT 1").execute(pool).await {
            Ok(_) => return status.ok(),
            Err(error) => status.failing(&error, "waiting for the database"),
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether the schema has everything that the program's own migrations make: each of them, done to its end. More is
/// no harm: the next version may already be rolling out.
///
/// # Errors
/// The database cannot be asked.
pub async fn schema_fits(pool: &Pool, needed: &Migrator) -> Result<bool, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let fits = within(ACQUIRE_WITHIN, has_schema(&mut connection, needed)).await;
    connection.end_with(&fits);
    fits
}

async fn has_schema(connection: &mut PgConnection, needed: &Migrator) -> Result<bool, sqlx::Error> {
    let versions: Vec<i64> = needed.iter().map(|migration| migration.version).collect();
    let has_schema: bool =
        sqlx::query_scalar("SELECT current_schema() IS NOT NULL").fetch_one(&mut *connection).await?;
    if !has_schema {
        let why = "no schema of search_path is there that this role may use: see deploy/database/privileges.sql";
        return Err(OwnFinding::Unfit(why.into()).into());
    }
    let has_table: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *connection).await?;
    if !has_table {
        return Ok(versions.is_empty());
    }
    sqlx::query_scalar(
        "SELECT NOT EXISTS (
            SELECT FROM unnest($1::bigint[]) AS needed
            WHERE NOT EXISTS (SELECT FROM _sqlx_migrations WHERE version = needed AND success))",
    )
    .bind(versions)
    .fetch_one(connection)
    .await
}

/// That the role may do what the service does.
///
/// # Errors
/// The database's, and one that names each privilege that is missing.
pub async fn may_work(pool: &Pool, needed: &privileges::Needed) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let missing = within(ACQUIRE_WITHIN, privileges::missing(&mut connection, needed)).await;
    connection.end_with(&missing);
    let missing = missing?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    let why = format!("privileges are missing, see deploy/database/privileges.sql: {missing}");
    Err(OwnFinding::Unfit(why).into())
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

/// What keeps the services from working with this database at all; none where nothing does.
///
/// # Errors
/// The database's.
pub async fn shortcoming(pool: &Pool, tables: &Tables) -> Result<Option<String>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let found = within(ACQUIRE_WITHIN, unfit(&mut connection, tables, false)).await;
    connection.end_with(&found);
    found
}

/// What the command `migrate` is told.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Migrate {
    /// Make the tables although another schema of this database has them: an installation beside that one.
    #[arg(long)]
    new_installation: bool,
}

async fn unfit(
    connection: &mut PgConnection,
    tables: &Tables,
    beside_another: bool,
) -> Result<Option<String>, sqlx::Error> {
    if let Some(found) = server::shortcoming(connection).await? {
        return Ok(Some(found));
    }
    if let Some(found) = ownership::foreign(connection, tables).await? {
        return Ok(Some(found));
    }
    if beside_another { Ok(None) } else { ownership::elsewhere(connection, tables).await }
}

/// Brings the schema up to date. Answers with what keeps the services from working with this database, if anything
/// does: nothing is changed then.
///
/// # Errors
/// The database is out of reach or refuses a migration.
pub async fn migrate(settings: &Settings, tables: &Tables, how: Migrate) -> anyhow::Result<Option<String>> {
    let mut connection = reach(settings).await?;
    let found = unfit(&mut connection, tables, how.new_installation).await.context("the database does not answer")?;
    if found.is_some() {
        return Ok(found);
    }
    sqlx::raw_sql(MIGRATION).execute(&mut connection).await?;
    // A newer version may have migrated further.
    let mut migrator = Migrator { migrations: tables.migrations.migrations.clone(), ..Migrator::DEFAULT };
    migrator.set_ignore_missing(true).run(&mut connection).await.context("a migration failed")?;
    Ok(None)
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

/// No schema, table, function or constraint. It was there at the start, so somebody restores a backup, or has changed
/// the schema: an outage of the database, which is told wherever it is met.
const MISSING: [&str; 4] = ["3F000", "42P01", "42883", "42P10"];

/// Whether something of the schema is not there.
#[must_use]
pub fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| MISSING.contains(&code.as_ref()))
}

/// What this program finds wrong itself, on its way through functions that answer with the database's errors.
#[derive(Debug, thiserror::Error)]
pub enum OwnFinding {
    /// The server, the schema or the role is not as it has to be. Whoever cures that is waited for, as in an outage.
    #[error("{0}")]
    Unfit(String),
    /// What was asked after a statement has failed, whatever became of the statement.
    #[error("after the statement: {0}")]
    AfterStatement(String),
    /// A statement has touched others than the rows it was to touch.
    #[error("{what}: {rows} rows instead of {expected}")]
    Rows { what: String, expected: usize, rows: u64 },
}

impl From<OwnFinding> for sqlx::Error {
    fn from(found: OwnFinding) -> Self {
        Self::Configuration(found.into())
    }
}

/// What an error means, so that nobody has to guess from a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server is away, shutting down or overloaded: the same again later. If a statement had
    /// been sent, nobody knows whether it was carried out.
    Outage,
    /// Deadlock or serialisation failure: rolled back, the same again at once.
    Conflict,
    /// The data itself does not fit (SQLSTATE class 22 or 23): never again as it is.
    Refused,
    /// Rolled back for a reason that neither waiting nor other data cures, such as a missing privilege.
    Defect,
}

/// A standby, or a primary that has become one; and what a pooler leaves behind that has given the session away: another
/// connection is needed, not another statement.
const OF_THE_SESSION: [&str; 4] = ["25006", "25001", "26000", "42P05"];

fn is_of_the_session(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| OF_THE_SESSION.contains(&code.as_ref()))
}

/// Whether the server has answered a statement with an error: it is rolled back then, and nothing is unknown. A
/// session that is being ended may be ended after its commit and before its answer.
#[must_use]
pub fn is_rolled_back(error: &sqlx::Error) -> bool {
    let answer = error.as_database_error().and_then(|answer| answer.try_downcast_ref::<PgDatabaseError>());
    answer.is_some_and(|answer| !matches!(answer.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

impl Failure {
    #[must_use]
    pub fn of(error: &sqlx::Error) -> Self {
        let Some(answer) = error.as_database_error() else {
            return match error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::RowNotFound => {
                    Self::Defect
                }
                sqlx::Error::Configuration(found) if matches!(found.downcast_ref(), Some(OwnFinding::Rows { .. })) => {
                    Self::Defect
                }
                _ => Self::Outage,
            };
        };
        // A session that is being ended may be ended after its commit and before its answer.
        if answer
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|e| matches!(e.severity(), PgSeverity::Fatal | PgSeverity::Panic))
        {
            return Self::Outage;
        }
        let code = answer.code().unwrap_or_default();
        match (code.get(..2).unwrap_or_default(), code.as_ref()) {
            (_, "40001" | "40P01") => Self::Conflict,
            ("22" | "23", _) => Self::Refused,
            // connection, resources, operator intervention, lock time-out
            ("08" | "53" | "57", _) | (_, "55P03") => Self::Outage,
            _ if OF_THE_SESSION.contains(&code.as_ref()) => Self::Outage,
            _ if MISSING.contains(&code.as_ref()) => Self::Outage,
            _ => Self::Defect,
        }
    }
}

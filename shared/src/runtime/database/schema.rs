//! The schema: whether a service can work with it, and what brings it up to date.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use clap::Args;
use sqlx::{
    PgConnection,
    migrate::{Migrate as _, MigrateError, Migrator},
};
use tokio::time::{Instant, sleep};

use super::{ACQUIRE_WITHIN, OwnFinding, Pool, Settings, Tables, ownership, privileges, reach, server, within};
use crate::runtime::{lifecycle::Exit, terminal};

/// What a migration is told, whatever the role or the database was given: a backslash is a backslash, a large table takes
/// its time, and so does whoever migrates already.
const MIGRATION: &str = "SET standard_conforming_strings = on; SET statement_timeout = 0; SET idle_session_timeout = 0; \
     SET lock_timeout = 0";
/// Everybody else waits behind a migration that waits for a table: for no longer than this, or what the role or the database
/// was given.
const LOCKS: &str =
    "RESET lock_timeout; SELECT set_config('lock_timeout', '2s', false) WHERE current_setting('lock_timeout') = '0'";
/// For so long a migration is tried again that did not get its locks; others get theirs in the pauses.
const TRIED_FOR: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_secs(1);

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

pub(super) async fn has_schema(connection: &mut PgConnection, needed: &Migrator) -> Result<bool, sqlx::Error> {
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

/// Brings the schema up to date. Where something keeps the services from working with this database the operator is told,
/// and nothing is changed.
///
/// # Errors
/// The database is out of reach or refuses a migration.
pub async fn migrate(settings: &Settings, tables: &Tables, how: Migrate) -> anyhow::Result<Exit> {
    let mut connection = reach(settings).await?;
    let found = unfit(&mut connection, tables, how.new_installation).await.context("the database does not answer")?;
    if let Some(found) = found {
        terminal::complain(format_args!("database.url: {found}"));
        return Ok(Exit::WrongSettings);
    }
    sqlx::raw_sql(MIGRATION).execute(&mut connection).await?;
    // The end of the session lets it go.
    connection.lock().await.context("a migration failed")?;
    run(&mut connection, tables.migrations).await.context("a migration failed")?;
    Ok(Exit::Stopped)
}

/// Says of each migration that it is applied, as soon as it is.
async fn run(connection: &mut PgConnection, migrations: &Migrator) -> Result<(), MigrateError> {
    let end = Instant::now() + TRIED_FOR;
    connection.ensure_migrations_table().await?;
    let before: BTreeSet<_> = connection.list_applied_migrations().await?.iter().map(|one| one.version).collect();
    for one in migrations.iter().filter(|one| !one.migration_type.is_down_migration()) {
        // What needs no transaction builds an index CONCURRENTLY: it waits for those of others, and nobody for it.
        sqlx::raw_sql(if one.no_tx { MIGRATION } else { LOCKS }).execute(&mut *connection).await?;
        let migrator = Migrator {
            migrations: vec![one.clone()].into(),
            // The others of this version; a newer one may have migrated further.
            ignore_missing: true,
            locking: false,
            ..Migrator::DEFAULT
        };
        while let Err(error) = migrator.run(&mut *connection).await {
            let left = end.saturating_duration_since(Instant::now());
            if !is_lock_timeout(&error) || left.is_zero() {
                return Err(error);
            }
            terminal::complain(format_args!("{error}; it is tried again, for {} s at most", left.as_secs()));
            sleep(PAUSE).await;
        }
        if !before.contains(&one.version) {
            say(&format!("applied {} {}", one.version, one.description));
        }
    }
    say("the schema is up to date");
    Ok(())
}

/// Nobody has to read it: what is applied is applied.
fn say(line: &str) {
    drop(terminal::print(line));
}

fn is_lock_timeout(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    error.as_database_error().is_some_and(|answer| answer.code().as_deref() == Some("55P03"))
}

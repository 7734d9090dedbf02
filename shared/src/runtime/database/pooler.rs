//! What stands between a service and the server: a pooler may take from a connection what the service relies on.

use std::time::Duration;

use sqlx::{Executor, PgConnection, Row, postgres::PgConnectOptions};

use super::{Address, Settings, connect_with, has_too_many, within};

/// All that one of them asks: a server that falls silent is asked again.
const CHECKED_WITHIN: Duration = Duration::from_secs(5);

/// So often two connections are compared: a pooler lends the session first that it got back last, but others may be quicker.
const ROUNDS: usize = 3;

/// What the pools tell their sessions, but for what is no harm to go without. Sessions that are lent have it of their role;
/// their time-outs may be others.
const OF_ROLE: [(&str, &str); 6] = [
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
    ("synchronous_commit", "on"),
];

/// Whether a connection is a session of the server, and not one that a pooler lends for a transaction at a time.
///
/// # Errors
/// The database's.
pub async fn is_session(address: &Address, application: &str) -> Result<bool, sqlx::Error> {
    within(CHECKED_WITHIN, stays_the_same(address, application)).await
}

async fn stays_the_same(address: &Address, application: &str) -> Result<bool, sqlx::Error> {
    let options = address.options()?.application_name(application);
    let Some([mut one, mut other]) = two(&options).await? else { return Ok(true) };
    for _ in 0..ROUNDS {
        let before = backend(&mut one).await?;
        if backend(&mut other).await? == before || backend(&mut one).await? != before {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What stands before the database.
#[derive(Debug)]
pub(super) struct Way {
    /// A pooler lends a session for one transaction at a time.
    pub lends_sessions: bool,
    /// Why the services cannot work through it, if they cannot.
    unfit: Option<String>,
}

impl Settings {
    /// Why the services cannot work through what stands before the database, a pooler; none where they can. To be asked
    /// before a connection is wanted, which is not waited for that long.
    ///
    /// # Errors
    /// The database's.
    pub async fn unfit_pooler(&self) -> Result<Option<String>, sqlx::Error> {
        let options = self.address.options()?;
        let seeing = || async { Way::of(&options).await.map_err(Some)?.ok_or(None) };
        match self.way.get_or_try_init(seeing).await {
            Ok(way) => Ok(way.unfit.clone()),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }
}

impl Way {
    /// None where there is no room for two connections, so that nothing can be told.
    pub(super) async fn of(options: &PgConnectOptions) -> Result<Option<Self>, sqlx::Error> {
        within(CHECKED_WITHIN, Self::seen(options)).await
    }

    async fn seen(options: &PgConnectOptions) -> Result<Option<Self>, sqlx::Error> {
        let Some(mut both) = two(options).await? else { return Ok(None) };
        let (mut backends, mut lends_sessions) = ([None, None], false);
        for _ in 0..ROUNDS {
            for (connection, known) in both.iter_mut().zip(&mut backends) {
                let answer = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(connection).await;
                let failed = answer.as_ref().err().and_then(sqlx::Error::as_database_error);
                // There is one of that name already; there is none.
                if failed.and_then(|failed| failed.code()).is_some_and(|code| matches!(&*code, "42P05" | "26000")) {
                    let unfit = "leads to a pooler that does not keep prepared statements; see connection poolers in \
                                 docs/operations.md";
                    return Ok(Some(Self { lends_sessions: true, unfit: Some(unfit.to_owned()) }));
                }
                let backend = answer?;
                lends_sessions |= known.replace(backend).is_some_and(|before| before != backend);
            }
            lends_sessions |= backends[0] == backends[1];
        }
        let [one, _] = &mut both;
        let lacking = if lends_sessions { lacking(one).await? } else { Vec::new() };
        let unfit = (!lacking.is_empty()).then(|| {
            format!(
                "leads to a pooler that lends a session for one transaction at a time, so the role needs settings that it \
                 lacks: {}; see connection poolers in docs/operations.md",
                lacking.join("; ")
            )
        });
        Ok(Some(Self { lends_sessions, unfit }))
    }
}

/// What gives the role what it lacks.
async fn lacking(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let mut lacking = Vec::new();
    for (name, wanted) in OF_ROLE {
        // The role's, whatever somebody has set on the session.
        let found = format!("SELECT reset_val FROM pg_settings WHERE name = '{name}'");
        let found: String = connection.fetch_one(found.as_str()).await?.try_get(0)?;
        let is_well = match name {
            "statement_timeout" | "idle_in_transaction_session_timeout" => found != "0",
            "synchronous_commit" => ["on", "remote_apply"].contains(&found.as_str()),
            _ => found == wanted,
        };
        if !is_well {
            lacking.push(format!("ALTER ROLE ... SET {name} = '{wanted}'"));
        }
    }
    Ok(lacking)
}

/// Two connections; none where there is no room for them, so that nothing can be told.
async fn two(options: &PgConnectOptions) -> Result<Option<[PgConnection; 2]>, sqlx::Error> {
    let connecting = async { Ok([connect_with(options).await?, connect_with(options).await?]) };
    match connecting.await {
        Err(error) if has_too_many(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Without a prepared statement, which may be another trouble.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    connection.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)
}

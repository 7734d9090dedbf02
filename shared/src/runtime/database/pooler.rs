//! What stands between a service and the server: a pooler may take from a connection what the service relies on.

use std::time::Duration;

use sqlx::{Executor, PgConnection, Row};

use super::{Address, connect, has_too_many, within};

/// All that one of them asks: a server that falls silent is asked again.
const CHECKED_WITHIN: Duration = Duration::from_secs(5);

/// So often two connections are compared: a pooler lends the session first that it got back last, but others may be quicker.
const ROUNDS: usize = 3;

/// Whether a connection is a session of the server, and not one that a pooler lends for a transaction at a time.
///
/// # Errors
/// The database's.
pub async fn is_session(address: &Address, application: &str) -> Result<bool, sqlx::Error> {
    within(CHECKED_WITHIN, stays_the_same(address, application)).await
}

async fn stays_the_same(address: &Address, application: &str) -> Result<bool, sqlx::Error> {
    let Some((mut one, mut other)) = two(address, application).await? else { return Ok(true) };
    for _ in 0..ROUNDS {
        let before = backend(&mut one).await?;
        if backend(&mut other).await? == before || backend(&mut one).await? != before {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a connection keeps the statements that are prepared on it, and has no others.
///
/// # Errors
/// The database's.
pub async fn keeps_prepared_statements(address: &Address, application: &str) -> Result<bool, sqlx::Error> {
    within(CHECKED_WITHIN, keeps(address, application)).await
}

async fn keeps(address: &Address, application: &str) -> Result<bool, sqlx::Error> {
    let Some((mut one, mut other)) = two(address, application).await? else { return Ok(true) };
    for _ in 0..ROUNDS {
        for connection in [&mut one, &mut other] {
            let answer = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(connection).await;
            let code = answer.as_ref().err().and_then(|error| Some(error.as_database_error()?.code()?.into_owned()));
            // There is one of that name already; there is none.
            if matches!(code.as_deref(), Some("42P05" | "26000")) {
                return Ok(false);
            }
            answer?;
        }
    }
    Ok(true)
}

/// Two connections; none where there is no room for them, so that nothing can be told.
async fn two(address: &Address, application: &str) -> Result<Option<(PgConnection, PgConnection)>, sqlx::Error> {
    let connecting = async { Ok((connect(address, application).await?, connect(address, application).await?)) };
    match connecting.await {
        Err(error) if has_too_many(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Without a prepared statement, which may be another trouble.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    connection.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)
}

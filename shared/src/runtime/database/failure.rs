//! What an error of the database means for whoever gets it.

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Whether the server refuses a connection because there are as many as it, the database or the role permits.
#[must_use]
pub fn has_too_many(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|answer| answer.code().as_deref() == Some("53300"))
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

/// Whether a row has no partition to go to: a constraint that it breaks would have a name.
#[must_use]
pub fn has_no_partition(error: &sqlx::Error) -> bool {
    let answer = error.as_database_error();
    answer.is_some_and(|answer| answer.code().as_deref() == Some("23514") && answer.constraint().is_none())
}

/// Whether the role may not do what it asked for: it waits for somebody who permits it.
#[must_use]
pub fn is_forbidden(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|answer| answer.code().as_deref() == Some("42501"))
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

pub(super) fn is_of_the_session(error: &sqlx::Error) -> bool {
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

//! What a test does to a step at a fail point.

/// `return` kills the process; `return(error)` makes the step fail, as though Postgres had gone away
/// after it was asked.
#[must_use]
pub fn kill_or_fail(how: Option<String>) -> sqlx::Error {
    match how {
        None => std::process::abort(),
        Some(_) => sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()),
    }
}

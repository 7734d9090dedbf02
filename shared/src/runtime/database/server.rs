//! Whether the server and its database are such as the services need.

use sqlx::{Executor, PgConnection, Row};

/// The oldest version of Postgres that everything is tested with.
const LEAST_VERSION: i32 = 14;

/// What keeps the services from working with this database, and what to do; none where nothing does.
///
/// # Errors
/// The database's.
pub(super) async fn shortcoming(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let asking = "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')";
    let row = connection.fetch_one(asking).await?;
    Ok(judge(row.try_get(0)?, row.try_get(1)?))
}

/// Whether it says that it is older, in what it says to every client.
pub(super) fn is_too_old(version_number: Option<u32>) -> bool {
    version_number.is_some_and(|number| number / 10_000 < LEAST_VERSION.unsigned_abs())
}

fn judge(version_number: i32, encoding: &str) -> Option<String> {
    let version = version_number / 10_000;
    if version < LEAST_VERSION {
        return Some(format!("the server is Postgres {version}, but {LEAST_VERSION} or newer is needed"));
    }
    // Of any other some names and references cannot be stored.
    (encoding != "UTF8").then(|| {
        format!("the database has the encoding {encoding}, but UTF8 is needed: create it with ENCODING 'UTF8' TEMPLATE template0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_told_with_both_versions() {
        assert_eq!(judge(140_000, "UTF8"), None);
        let told = judge(130_022, "UTF8").unwrap();
        assert_eq!(told, "the server is Postgres 13, but 14 or newer is needed");
        let too_old = [None, Some(90_624), Some(130_022), Some(140_000), Some(180_001)].map(is_too_old);
        assert_eq!(too_old, [false, true, true, false, false]);
    }
}

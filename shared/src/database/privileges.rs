//! Whether the role may do what its service does: better found at the start than by a caller.

use sqlx::PgConnection;

/// Tables, views and sequences, and what has to be permitted of each, with commas.
pub type Needed = [(&'static str, &'static str)];

/// Those of `needed` that are missing, like `INSERT on orders`.
///
/// # Errors
/// The database's, also where one of them is not there.
pub(super) async fn missing(connection: &mut PgConnection, needed: &Needed) -> Result<Vec<String>, sqlx::Error> {
    let (names, privileges): (Vec<_>, Vec<_>) = needed.iter().copied().unzip();
    // A privilege of one column is enough: of an order only some may change.
    sqlx::query_scalar(
        "SELECT privilege || ' on ' || name
        FROM unnest($1::text[], $2::text[]) AS needed (name, privileges),
            unnest(string_to_array(privileges, ', ')) AS privilege
        WHERE NOT CASE privilege
            WHEN 'USAGE' THEN has_sequence_privilege(name, privilege)
            WHEN 'DELETE' THEN has_table_privilege(name, privilege)
            ELSE has_any_column_privilege(name, privilege) END
        ORDER BY name, privilege",
    )
    .bind(names)
    .bind(privileges)
    .fetch_all(connection)
    .await
}

//! Whether the role may do what its service does: better found at the start than by a caller.

use sqlx::PgConnection;

/// Tables, views, sequences and functions, and what has to be permitted of each, with commas. Where it is of some columns
/// only, these are named, like `orders (status, version)`.
pub type Needed = [(&'static str, &'static str)];

/// Those of `needed` that are missing, like `INSERT on orders`.
///
/// # Errors
/// The database's, also where one of them is not there.
pub(super) async fn missing(connection: &mut PgConnection, needed: &Needed) -> Result<Vec<String>, sqlx::Error> {
    let (names, privileges): (Vec<_>, Vec<_>) = needed.iter().copied().unzip();
    sqlx::query_scalar(
        "SELECT privilege || ' on ' || name
        FROM unnest($1::text[], $2::text[]) AS needed (name, privileges),
            unnest(string_to_array(privileges, ', ')) AS privilege,
            split_part(name, ' (', 1) AS object,
            string_to_array(rtrim(split_part(name, ' (', 2), ')'), ', ') AS columns
        WHERE NOT CASE
            WHEN privilege = 'EXECUTE' THEN EXISTS (
                SELECT FROM pg_proc
                WHERE proname = object AND pg_function_is_visible(oid) AND has_function_privilege(oid, privilege))
            WHEN privilege = 'USAGE' THEN has_sequence_privilege(object, privilege)
            WHEN columns <> '{}' THEN (
                SELECT bool_and(has_column_privilege(object, name, privilege)) FROM unnest(columns) AS of_one (name))
            ELSE has_table_privilege(object, privilege) END
        ORDER BY name, privilege",
    )
    .bind(names)
    .bind(privileges)
    .fetch_all(connection)
    .await
}

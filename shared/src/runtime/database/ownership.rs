//! Whose tables a schema has. Without this question the wrong database, or a `search_path` that leads elsewhere, looks
//! like an old schema, and migrating it would start with empty tables: numbers would be given a second time.

use sqlx::{Executor, PgConnection, Row, migrate::Migrator};

/// What tells a service's tables from those of others.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    pub service: &'static str,
    pub migrations: &'static Migrator,
    /// A table or sequence that every schema of the service has, and no other one.
    pub mark: &'static str,
}

/// Why these are not the service's tables, and what to do; none where they are, or where there are none.
///
/// # Errors
/// The database's.
pub(super) async fn foreign(connection: &mut PgConnection, tables: &Tables) -> Result<Option<String>, sqlx::Error> {
    let asking = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL, current_database(), current_schema()";
    let row = connection.fetch_one(asking).await?;
    let (migrated, database): (bool, String) = (row.try_get(0)?, row.try_get(1)?);
    let Some(schema) = row.try_get::<Option<String>, _>(2)? else { return Ok(None) };
    if !migrated {
        return Ok(None);
    }
    let (versions, names): (Vec<i64>, Vec<&str>) =
        tables.migrations.iter().map(|one| (one.version, one.description.as_ref())).unzip();
    // A later version of the service may have added to them.
    let other: Option<String> = sqlx::query_scalar(
        "SELECT description FROM _sqlx_migrations AS made
        LEFT JOIN unnest($1::bigint[], $2::text[]) AS own (version, name) USING (version)
        GROUP BY version, description, name
        HAVING own.name <> made.description
            OR NOT EXISTS (SELECT FROM _sqlx_migrations JOIN unnest($1::bigint[]) AS own (version) USING (version))
        ORDER BY version LIMIT 1",
    )
    .bind(versions)
    .bind(names)
    .fetch_optional(connection)
    .await?;
    Ok(other.map(|other| {
        format!(
            "the schema {schema} of the database {database} belongs to another program, whose migrations begin with \
             {other:?}: give {} a database of its own, or a schema of its own by the role's search_path",
            tables.service
        )
    }))
}

/// Where the service's tables are, if they are in this database but not where `search_path` leads, and what to do.
///
/// # Errors
/// The database's.
pub(super) async fn elsewhere(connection: &mut PgConnection, tables: &Tables) -> Result<Option<String>, sqlx::Error> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT nspname::text, current_schema()::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relname = $1 AND relkind IN ('r', 'p', 'S') AND current_schema() IS NOT NULL AND to_regclass($1) IS NULL
        ORDER BY nspname LIMIT 1",
    )
    .bind(tables.mark)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(|(there, here)| {
        format!(
            "the tables of {service} are in the schema {there}, but search_path leads to {here}: set it, such as ALTER ROLE \
             ... SET search_path = {there}; for an installation beside that one run {service} migrate --new-installation",
            service = tables.service
        )
    }))
}

//! What the role of a service may do. That it may do enough, all other tests show.

use sqlx::{Connection, Executor, PgConnection};

use crate::Database;

/// Has the role of the service try to change the schema, and use a table of a migration still to come.
///
/// # Panics
/// It can do the one, or cannot do the other.
pub async fn only_the_owner_changes_the_schema(database: &Database) {
    let mut service = PgConnection::connect(&database.url()).await.unwrap();
    for statement in changes(database).await {
        let refused = service.execute(statement.as_str()).await.expect_err(&statement);
        let refused = refused.into_database_error().expect("the server's answer");
        assert_eq!(refused.code().as_deref(), Some("42501"), "{statement}: {refused}");
    }

    let mut owner = PgConnection::connect(&database.owner_url()).await.unwrap();
    owner.execute("CREATE TABLE made_later (number bigserial PRIMARY KEY, text text)").await.unwrap();
    for statement in [
        "INSERT INTO made_later (text) VALUES ('a')",
        "UPDATE made_later SET text = 'b' WHERE text = 'a'",
        "DELETE FROM made_later WHERE text = 'b'",
    ] {
        assert_eq!(service.execute(statement).await.expect(statement).rows_affected(), 1, "{statement}");
    }
    owner.execute("DROP TABLE made_later").await.unwrap();
}

/// What the role of the service may change, by table, view or partition: `INSERT, UPDATE, DELETE`, or `UPDATE (a, b)` where
/// it is these columns only. Large objects it may not.
///
/// # Panics
/// It may make one, or everybody may call what runs with the rights of the owner.
pub async fn permitted_changes(database: &Database) -> Vec<(String, String)> {
    let large = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
        AND proname IN ('lo_create', 'lo_from_bytea', 'lo_put', 'loread', 'lowrite')
        AND has_function_privilege('test_service', oid, 'EXECUTE')";
    assert_eq!(database.number(large).await, 0, "functions of large objects");
    let lent = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
        AND has_function_privilege('public', oid, 'EXECUTE')";
    assert_eq!(database.number(lent).await, 0, "functions with the rights of the owner");
    let permitted = "SELECT relname::text, string_agg(privilege, ', ' ORDER BY place)
        FROM pg_class, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'])
            WITH ORDINALITY AS changes (change, place),
            LATERAL (
                SELECT CASE WHEN has_table_privilege('test_service', pg_class.oid, change) THEN change
                    ELSE change || ' (' || string_agg(attname::text, ', ' ORDER BY attname) || ')' END
                FROM pg_attribute
                WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
                    AND CASE WHEN change IN ('INSERT', 'UPDATE', 'REFERENCES')
                        THEN has_column_privilege('test_service', attrelid, attnum, change) END
            ) AS permitted (privilege)
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND privilege IS NOT NULL
        GROUP BY relname ORDER BY relname";
    sqlx::query_as(permitted).fetch_all(&database.pool).await.unwrap()
}

async fn changes(database: &Database) -> Vec<String> {
    let of_each_table = r#"
        SELECT format(change, c.oid::regclass) FROM pg_class c, unnest(ARRAY[
            'ALTER TABLE %1$s ADD COLUMN more text', 'ALTER TABLE %1$s SET (fillfactor = 50)', 'TRUNCATE %1$s CASCADE',
            'CREATE INDEX ON %1$s ((1))', 'DROP TABLE %1$s CASCADE', 'ALTER TABLE %1$s OWNER TO CURRENT_USER',
            'CREATE TRIGGER t AFTER INSERT ON %1$s EXECUTE FUNCTION suppress_redundant_updates_trigger()']) change
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
    "#;
    let mut all: Vec<String> = sqlx::query_scalar(of_each_table).fetch_all(&database.pool).await.unwrap();
    assert!(!all.is_empty(), "there are tables");
    all.extend(
        [
            "CREATE TABLE own (number bigint)",
            "CREATE TEMPORARY TABLE own (number bigint)",
            "CREATE SCHEMA own",
            "CREATE SEQUENCE own",
            "CREATE FUNCTION own() RETURNS integer LANGUAGE sql RETURN 1",
            "CREATE EXTENSION hstore",
            "CREATE ROLE own",
            "CREATE DATABASE own",
            "UPDATE _sqlx_migrations SET success = false",
            "DELETE FROM _sqlx_migrations",
        ]
        .map(str::to_owned),
    );
    all
}

//! Migrations as an operator runs them: with sqlx-cli as it is.

use sqlx::migrate::Migrator;
use tokio::process::Command;

use crate::{Database, Setup, root};

/// Brings `migrations`, a folder of the workspace, up, down and up again with `sqlx` from the PATH.
///
/// # Panics
/// Going down leaves something behind, or the schema is not the same the second time.
pub async fn up_down_up(migrations: &str) {
    let database = Database::empty().await;
    run_cli(&database, migrations, &["run"]).await;
    let up = describe(&database).await;
    assert!(!up.is_empty(), "nothing was applied");
    run_cli(&database, migrations, &["revert", "--target-version", "0"]).await;
    assert_eq!(describe(&database).await, "", "left behind by going down");
    run_cli(&database, migrations, &["run"]).await;
    assert_eq!(describe(&database).await, up, "not the same after up, down, up");
}

async fn run_cli(database: &Database, migrations: &str, command: &[&str]) {
    let mut sqlx = Command::new("sqlx");
    sqlx.arg("migrate").args(command).args(["--source", migrations, "--database-url", &database.owner_url()]);
    let done = sqlx.current_dir(root()).output().await.expect("sqlx-cli is in the PATH: run make test");
    assert!(done.status.success(), "sqlx migrate {command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The schema of a database as sorted lines: tables with their rows' number, columns, constraints,
/// indexes, sequences and functions.
pub async fn describe(database: &Database) -> String {
    let lines: Vec<String> = sqlx::query_scalar(
        r#"
        WITH relation AS (
            SELECT c.oid, c.relname, c.relkind, c.reloptions FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relname NOT LIKE '\_sqlx%'
        ), line AS (
            SELECT concat_ws(' ', relkind, relname, reloptions::text, CASE WHEN relkind = 'r' THEN
                (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I', relname), false, true, '')))[1]
                END) AS text FROM relation
            UNION ALL
            SELECT concat_ws(' ', 'column', relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
                pg_get_expr(adbin, adrelid))
            FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND attnum > 0 AND NOT attisdropped
            LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
            WHERE relkind = 'r'
            UNION ALL
            SELECT concat_ws(' ', 'constraint', relname, conname, pg_get_constraintdef(k.oid))
            FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid
            UNION ALL
            SELECT pg_get_indexdef(oid) FROM relation WHERE relkind = 'i'
            UNION ALL
            SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            UNION ALL
            SELECT concat_ws(' ', 'trigger', relname, pg_get_triggerdef(t.oid))
            FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT tgisinternal
            UNION ALL
            SELECT concat_ws(' ', 'type', typname) FROM pg_type
            WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
        )
        SELECT text FROM line ORDER BY text
        "#,
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    lines.join("\n")
}

/// A database with the tables that `other` makes, and one of which nobody knows whose it is, are left as they are.
///
/// # Panics
/// The service of `binary` begins with them or migrates them, `command` works with them, or it is not said why not.
pub async fn leaves_tables_of_others_alone(binary: &Setup, other: &str, command: &[&str]) {
    let database = Database::new(&Migrator::new(root().join(other)).await.unwrap()).await;
    is_refused(binary, &database, &database.owner_url(), command, "belongs to another program").await;
    let unknown = Database::empty().await;
    unknown.execute(
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL
            DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL);
        INSERT INTO _sqlx_migrations VALUES (20200101000000, 'invoices', now(), true, '', 0);
        GRANT ALL ON _sqlx_migrations TO test_owner",
    ).await;
    is_refused(binary, &unknown, &unknown.owner_url(), command, "invoices").await;
}

/// The service's own tables, of which `relation` is one, where its `search_path` does not lead: nothing is begun anew
/// unless that is asked for.
///
/// # Panics
/// The service of `binary` begins anew by itself, or does not when it is asked to.
pub async fn begins_nothing_anew_by_itself(binary: &Setup, own: &Migrator, relation: &str) {
    let database = Database::new(own).await;
    database.execute("CREATE SCHEMA elsewhere AUTHORIZATION test_owner").await;
    let url = format!("{}?options=-c%20search_path%3Delsewhere", database.owner_url());
    let told = "are in the schema public, but search_path leads to elsewhere";
    is_refused(binary, &database, &url, &["resume"], told).await;
    // An installation beside the other one is asked for by name.
    for _ in 0..2 {
        let done = binary.clone().set("database.url", &url).run(&["migrate", "--new-installation"]).await;
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let there = format!("SELECT count(*) FROM pg_class WHERE relname = '{relation}'");
    assert_eq!(database.number(&there).await, 2);
    let done = binary.clone().set("database.url", &url).run(&["migrate"]).await;
    assert_eq!(done.status.code(), Some(0), "it is there now: {}", String::from_utf8_lossy(&done.stderr));
}

async fn is_refused(binary: &Setup, database: &Database, url: &str, command: &[&str], told: &str) {
    let before = describe(database).await;
    for command in [command, &["serve"], &["migrate"]] {
        let done = binary.clone().set("database.url", url).run(command).await;
        let said = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert_eq!(done.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains(told), "{command:?}: {said}");
    }
    assert_eq!(describe(database).await, before);
}

use std::path::Path;

use activity_service::app::MIGRATIONS;
use sqlx::migrate::Migrator;
use testing::{Database, describe, is_refused, only_the_owner_changes_the_schema, permitted_changes, up_down_up};

use crate::world::{binary, seconds};

#[tokio::test]
async fn the_migrations_go_up_down_and_up_again_with_the_real_sqlx_cli() {
    up_down_up("migrations/activity").await;
}

#[tokio::test]
async fn the_service_brings_the_same_schema_as_its_migrations_and_does_so_twice() {
    let (migrated, expected) = (Database::empty().await, Database::new(&MIGRATIONS).await);
    for _ in 0..2 {
        let done = binary().set("database.url", migrated.owner_url()).run(&["migrate"]).await;
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert_eq!(describe(&migrated).await, describe(&expected).await);
}

/// As the Jobs of several deployments do.
#[tokio::test]
async fn six_may_migrate_an_empty_database_at_once() {
    let database = Database::empty().await;
    let setup = binary().set("database.url", database.owner_url());
    let (all, each) = (futures_util::future::join_all((0..6).map(|_| setup.run(&["migrate"]))).await, Some(0));
    for done in all {
        assert_eq!(done.status.code(), each, "{}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test]
async fn on_an_older_schema_it_ends_with_3_and_says_what_to_do() {
    let older = Database::new(&MIGRATIONS).await;
    for schema in [
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
        "DROP TABLE _sqlx_migrations",
    ] {
        older.execute(schema).await;
        let mut service = binary().set("database.url", older.url()).spawn();
        assert_eq!(service.ended(seconds(10)).await.code(), Some(3));
        let told = service.log();
        assert!(told.iter().any(|line| line.to_string().contains("run activity-service migrate")), "{told:?}");
    }
}

#[tokio::test]
async fn a_newer_schema_is_accepted() {
    let newer = Database::new(&MIGRATIONS).await;
    newer
        .execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99990101000000, 'later', true, '', 0)")
        .await;
    let service = binary().set("database.url", newer.url()).start().await;
    assert_eq!(service.stop().await, Some(0));
    let done = binary().set("database.url", newer.owner_url()).run(&["migrate"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Holds: activity-service cannot change its schema.
#[tokio::test]
async fn the_role_of_the_service_cannot_change_the_schema() {
    only_the_owner_changes_the_schema(&Database::new(&MIGRATIONS).await).await;
}

/// Holds: activity-service may delete only from tables that are purged, and change no key.
#[tokio::test]
async fn the_role_of_the_service_may_change_what_it_needs_to_and_no_more() {
    let database = Database::new(&MIGRATIONS).await;
    // By the one who owns the tables, as the function has it: default privileges are his.
    database.execute("SELECT make_key_partition('2026-11-20')").await;
    let expected = [
        ("activity_types", "INSERT, UPDATE"),
        ("audit", "INSERT"),
        ("business_calendar", "INSERT, UPDATE"),
        ("complete_days", "INSERT"),
        ("consumer_positions", "INSERT, UPDATE"),
        ("consumption_gaps", "INSERT, UPDATE, DELETE"),
        ("daily_activity_shards", "INSERT, UPDATE"),
        ("differing_figures", "INSERT, UPDATE, DELETE"),
        ("hourly_activity_shards", "INSERT, UPDATE"),
        ("key_day_ends", "INSERT, DELETE"),
        ("key_horizon", "UPDATE"),
        ("message_copies", "INSERT, UPDATE, DELETE"),
        ("pause", "INSERT, UPDATE, DELETE"),
        ("processed_messages", "INSERT"),
        ("processed_messages_undated", "DELETE"),
        ("quarantine", "INSERT, UPDATE, DELETE"),
        ("quarantine_copies", "INSERT, UPDATE, DELETE"),
        ("source_minutes", "INSERT, UPDATE, DELETE"),
        ("sources", "INSERT, UPDATE"),
    ];
    let expected = expected.map(|(table, changes)| (table.to_owned(), changes.to_owned()));
    assert_eq!(permitted_changes(&database).await, expected);
}

#[tokio::test]
async fn the_tables_of_another_program_are_left_alone() {
    let other = Migrator::new(Path::new("../migrations/orders")).await.unwrap();
    let database = Database::new(&other).await;
    is_refused(&binary(), &database, &database.owner_url(), "belongs to another program").await;
    let unknown = Database::empty().await;
    unknown.execute(
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL
            DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL);
        INSERT INTO _sqlx_migrations VALUES (20200101000000, 'invoices', now(), true, '', 0);
        GRANT ALL ON _sqlx_migrations TO test_owner",
    ).await;
    is_refused(&binary(), &unknown, &unknown.owner_url(), "invoices").await;
}

#[tokio::test]
async fn a_search_path_that_leads_elsewhere_is_told_and_nothing_is_begun_anew() {
    let database = Database::new(&MIGRATIONS).await;
    database.execute("CREATE SCHEMA elsewhere AUTHORIZATION test_owner").await;
    let url = format!("{}?options=-c%20search_path%3Delsewhere", database.owner_url());
    is_refused(&binary(), &database, &url, "are in the schema public, but search_path leads to elsewhere").await;
    // An installation beside the other one is asked for by name.
    for _ in 0..2 {
        let done = binary().set("database.url", &url).run(&["migrate", "--new-installation"]).await;
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert_eq!(database.number("SELECT count(*) FROM pg_class WHERE relname = 'processed_messages'").await, 2);
    let done = binary().set("database.url", &url).run(&["migrate"]).await;
    assert_eq!(done.status.code(), Some(0), "it is there now: {}", String::from_utf8_lossy(&done.stderr));
}

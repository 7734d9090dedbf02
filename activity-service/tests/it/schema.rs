use activity_service::app::MIGRATIONS;
use serde_json::Value;
use testing::{
    Database, begins_nothing_anew_by_itself, describe, leaves_tables_of_others_alone,
    only_the_owner_changes_the_schema, permitted_changes, up_down_up, wait_until,
};

use crate::world::{World, binary, seconds};

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
        ("consumption_gaps", "INSERT, UPDATE (closed_at, closed_by, reason, state, to_offset), DELETE"),
        ("daily_activity_shards", "INSERT, UPDATE"),
        ("differing_figures", "INSERT, UPDATE, DELETE"),
        ("hourly_activity_shards", "INSERT, UPDATE"),
        ("key_day_ends", "INSERT, DELETE"),
        ("key_horizon", "UPDATE"),
        ("message_copies", "INSERT, UPDATE, DELETE"),
        ("pause", "INSERT, UPDATE, DELETE"),
        ("processed_messages", "INSERT"),
        ("processed_messages_undated", "DELETE"),
        // Not the bytes of a message, nor where it stood.
        (
            "quarantine",
            "INSERT, UPDATE (activity_type_code, corrected_value, detail, identity, message_ref, reason, resolution, \
             resolved_at, resolved_by, state), DELETE",
        ),
        ("quarantine_copies", "INSERT, UPDATE, DELETE"),
        ("source_minutes", "INSERT, UPDATE, DELETE"),
        ("sources", "INSERT, UPDATE"),
    ];
    let expected = expected.map(|(table, changes)| (table.to_owned(), changes.to_owned()));
    assert_eq!(permitted_changes(&database).await, expected);
}

#[tokio::test]
async fn a_missing_privilege_is_named_at_the_start_and_waited_for() {
    let world = World::new(1).await;
    for (revoke, told, grant) in [
        (
            "REVOKE INSERT ON processed_messages FROM test_service",
            "INSERT on processed_messages",
            "GRANT INSERT ON processed_messages TO test_service",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION make_key_partition FROM test_service",
            "EXECUTE on make_key_partition",
            "GRANT EXECUTE ON FUNCTION make_key_partition TO test_service",
        ),
        (
            "REVOKE SELECT ON _sqlx_migrations FROM test_service",
            "permission denied for table _sqlx_migrations",
            "GRANT SELECT ON _sqlx_migrations TO test_service",
        ),
        (
            "REVOKE USAGE ON SCHEMA public FROM test_service",
            "no schema of search_path",
            "GRANT USAGE ON SCHEMA public TO test_service",
        ),
    ] {
        world.database.execute(revoke).await;
        let mut service = world.setup().spawn();
        let named = |line: &Value| line["error"].as_str().is_some_and(|error| error.contains(told));
        wait_until(told, seconds(10), async || service.log().iter().any(named)).await;
        assert_eq!((service.probe("startup").await, service.probe("ready").await), (Some(503), Some(503)));
        assert_eq!(service.health().await["components"]["database"]["state"], "waiting");
        world.database.execute(grant).await;
        service.ready().await;
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn the_tables_of_another_program_are_left_alone() {
    leaves_tables_of_others_alone(&binary(), "migrations/orders", &["calendar", "rename", "UTC"]).await;
}

#[tokio::test]
async fn a_search_path_that_leads_elsewhere_is_told_and_nothing_is_begun_anew() {
    begins_nothing_anew_by_itself(&binary(), &MIGRATIONS, "processed_messages").await;
}

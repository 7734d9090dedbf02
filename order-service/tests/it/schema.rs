use std::collections::BTreeSet;

use order_service::app::MIGRATIONS;
use serde_json::Value;
use sqlx::{Connection, PgConnection, migrate::Migrator};
use testing::{
    Database, Topic, begins_nothing_anew_by_itself, describe, leaves_tables_of_others_alone,
    only_the_owner_changes_the_schema, order_body, permitted_changes, up_down_up, wait_until,
};
use uuid::Uuid;

use crate::world::{World, binary, seconds};

#[tokio::test]
async fn the_migrations_go_up_down_and_up_again_with_the_real_sqlx_cli() {
    up_down_up("migrations/orders").await;
}

#[tokio::test]
async fn the_service_brings_the_same_schema_as_its_migrations_and_does_so_twice() {
    let (migrated, expected) = (Database::empty().await, Database::new(&MIGRATIONS).await);
    let up = MIGRATIONS.iter().filter(|one| one.migration_type.is_up_migration());
    let mut told: Vec<_> = up.map(|one| format!("applied {} {}", one.version, one.description)).collect();
    told.push("the schema is up to date".into());
    for told in [told.join("\n"), told.pop().unwrap()] {
        let done = binary().set("database.url", migrated.owner_url()).run(&["migrate"]).await;
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim_end(), told);
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

/// Before the outbox got the columns of given messages.
const BEFORE_GIVEN_MESSAGES: i64 = 20_261_129_000_701;

#[tokio::test]
async fn a_migration_that_waits_for_a_reader_is_tried_again_until_he_has_gone() {
    let before: Vec<_> = MIGRATIONS.iter().filter(|one| one.version <= BEFORE_GIVEN_MESSAGES).cloned().collect();
    let database = Database::new(&Migrator { migrations: before.into(), ..Migrator::DEFAULT }).await;
    let mut reader = database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE outbox IN ACCESS SHARE MODE").execute(&mut *reader).await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let reading = async {
        wait_until("it waits", seconds(10), async || database.number(waiting).await > 0).await;
        wait_until("it waits no more", seconds(10), async || database.number(waiting).await == 0).await;
        reader.rollback().await.unwrap();
    };
    let setup = binary().set("database.url", database.owner_url());
    let (done, ()) = tokio::join!(setup.run(&["migrate"]), reading);
    let told = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{told}");
    assert!(told.contains("it is tried again"), "{told}");
    assert_eq!(describe(&database).await, describe(&Database::new(&MIGRATIONS).await).await);
}

#[tokio::test]
async fn on_an_older_schema_it_ends_with_3_and_says_what_to_do() {
    let older = Database::new(&MIGRATIONS).await;
    let newest = "(SELECT max(version) FROM _sqlx_migrations)";
    let oldest = "(SELECT min(version) FROM _sqlx_migrations)";
    for schema in [
        &format!("UPDATE _sqlx_migrations SET success = false WHERE version = {oldest}"),
        &format!("DELETE FROM _sqlx_migrations WHERE version = {oldest}"),
        &format!("DELETE FROM _sqlx_migrations WHERE version = {newest}"),
        "DROP TABLE _sqlx_migrations",
    ] {
        older.execute(schema).await;
        let mut service = binary().set("database.url", older.url()).spawn();
        assert_eq!(service.ended(seconds(10)).await.code(), Some(3));
        assert!(service.has_logged("run order-service migrate"));
    }
}

#[tokio::test]
async fn while_a_backup_is_restored_it_is_not_ready_and_answers_503() {
    let world = World::new().await;
    let service = world.setup().start().await;
    world.client(&service).place_one().await;
    world.at_rest(seconds(20)).await;
    // As a restore of everything begins.
    world.database.execute("ALTER SCHEMA public RENAME TO away; CREATE SCHEMA public").await;
    wait_until("it is not ready", seconds(10), async || service.probe("ready").await == Some(503)).await;
    let client = reqwest::Client::new();
    for path in ["/orders", "/orders/OS000001-ORD", "/admin/messages"] {
        assert_eq!(client.get(format!("{}{path}", service.api())).send().await.unwrap().status(), 503, "{path}");
    }
    let order = client.post(format!("{}/orders", service.api())).json(&order_body("C-1"));
    assert_eq!(order.send().await.unwrap().status(), 503);
    assert_eq!(service.probe("live").await, Some(200));
    world.database.execute("DROP SCHEMA public; ALTER SCHEMA away RENAME TO public").await;
    wait_until("it is ready", seconds(10), async || service.probe("ready").await == Some(200)).await;
    world.client(&service).place_one().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
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

/// Holds: order-service cannot change its schema.
#[tokio::test]
async fn the_role_of_the_service_cannot_change_the_schema() {
    only_the_owner_changes_the_schema(&Database::new(&MIGRATIONS).await).await;
}

/// Holds: order-service may delete only from tables that are purged, and change no message.
#[tokio::test]
async fn the_role_of_the_service_may_change_what_it_needs_to_and_no_more() {
    let database = Database::new(&MIGRATIONS).await;
    database.execute("SELECT make_partitions(3)").await;
    let expected = [
        ("announced", "INSERT, DELETE"),
        ("audit", "INSERT"),
        ("cell", "INSERT, UPDATE"),
        ("counted_logs", "INSERT, UPDATE, DELETE"),
        ("idempotency_keys", "INSERT, UPDATE, DELETE"),
        ("instances", "INSERT, UPDATE, DELETE"),
        ("log_progress", "INSERT, DELETE"),
        ("message_counts", "INSERT, UPDATE, DELETE"),
        ("orders", "INSERT, UPDATE (customer_ref, status, version)"),
        ("outbox", "INSERT"),
        ("pause", "INSERT, UPDATE, DELETE"),
        ("published", "INSERT"),
        ("rebroadcasts", "INSERT, UPDATE, DELETE"),
        // Not what it takes to send it.
        (
            "rejected_messages",
            "INSERT, UPDATE (discard_reason, discarded_at, discarded_by, failures, holder, last_error, rejected_at, retry_at, \
             state), DELETE",
        ),
        ("rejections", "INSERT, DELETE"),
        ("told_counts", "UPDATE"),
    ];
    let expected = expected.map(|(table, changes)| (table.to_owned(), changes.to_owned()));
    assert_eq!(permitted_changes(&database).await, expected);
}

#[tokio::test]
async fn a_missing_privilege_is_named_at_the_start_and_waited_for() {
    let world = World::new().await;
    for (revoke, told, grant) in [
        (
            "REVOKE INSERT ON idempotency_keys FROM test_service",
            "INSERT on idempotency_keys",
            "GRANT INSERT ON idempotency_keys TO test_service",
        ),
        (
            "REVOKE USAGE ON SEQUENCE order_number FROM test_service; REVOKE UPDATE (customer_ref) ON orders FROM test_service",
            "USAGE on order_number, UPDATE on orders (status, version, customer_ref)",
            "GRANT USAGE ON SEQUENCE order_number TO test_service; GRANT UPDATE (customer_ref) ON orders TO test_service",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION make_partitions FROM PUBLIC, test_service",
            "EXECUTE on make_partitions",
            "GRANT EXECUTE ON FUNCTION make_partitions TO PUBLIC",
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
        world.database.execute(grant).await;
        service.ready().await;
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn the_role_of_the_service_changes_no_message_and_nothing_of_an_order_but_its_status() {
    let world = World::new().await;
    let running = world.setup().start().await;
    let order = world.client(&running).place_one().await;
    world.at_rest(seconds(10)).await;
    let parts = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN ('outbox'::regclass, 'published'::regclass)";
    let mut tables: Vec<String> = sqlx::query_scalar(parts).fetch_all(&world.database.pool).await.unwrap();
    assert!(tables.len() > 10);
    tables.extend(["outbox".into(), "published".into()]);
    let changes =
        tables.iter().flat_map(|table| [format!("UPDATE {table} SET instance = 1"), format!("DELETE FROM {table}")]);
    let of_orders =
        ["UPDATE orders SET placed_at = now()", "UPDATE orders SET quantities = '{1}'", "DELETE FROM orders"];
    let mut service = PgConnection::connect(&world.database.url()).await.unwrap();
    for statement in changes.chain(of_orders.map(str::to_owned)) {
        let refused = sqlx::raw_sql(&statement).execute(&mut service).await.expect_err(&statement);
        assert_eq!(refused.into_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
    }
    let answer =
        world.client(&running).ask(reqwest::Method::POST, &format!("/orders/{order}/complete"), &[], Vec::new()).await;
    assert_eq!(answer.unwrap().status, 200);
    world.at_rest(seconds(10)).await;
    assert_eq!(running.stop().await, Some(0));
    world.judge().await;
}

/// The schema as it was before the outbox became a log.
const BEFORE_THE_LOG: i64 = 20_261_125_000_002;

/// So many orders of one to three lines with their messages, as the versions before left them: most published, some
/// not, some refused, some failed, with and without a trace, over several days.
const OLD_ROWS: &str = r#"
    INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at, status, version)
    SELECT nextval('order_number'), 'C-' || n % 50, 1 + n % 3, now() - make_interval(hours => ((COUNT - n) * 100 / COUNT)::integer),
        CASE WHEN n % 10 = 0 THEN 'Fulfilled' ELSE 'New' END, CASE WHEN n % 10 = 0 THEN 2 ELSE 1 END
    FROM generate_series(1, COUNT::bigint) AS n;
    INSERT INTO order_items (order_id, line_number, product_id, quantity)
    SELECT order_id, line, gen_random_uuid(), line * 7 FROM orders, generate_series(1, number_of_items) AS line;
    INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, owner, key, value, headers, state, published_at,
        partition, "offset", failures, last_error)
    SELECT message_ref, order_id, code, placed_at, 0, a.key, a.value, a.headers, state,
        CASE state WHEN 'published' THEN placed_at + interval '40 milliseconds' END,
        CASE state WHEN 'published' THEN order_id % 6 END, CASE state WHEN 'published' THEN order_id END,
        CASE state WHEN 'failed' THEN 10 ELSE (order_id % 400 = 0)::integer END,
        CASE WHEN state = 'failed' OR order_id % 400 = 0 THEN 'message size too large' END
    FROM (
        SELECT *, (lpad(to_hex((extract(epoch FROM placed_at) * 1000)::bigint), 12, '0')
                || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS message_ref,
            CASE v WHEN 1 THEN 'ORDER_CREATED' ELSE 'ORDER_COMPLETED' END AS code,
            CASE WHEN order_id % 400 = 0 OR order_id % 101 = 0 THEN 'unpublished' WHEN order_id % 103 = 0 THEN 'failed'
                ELSE 'published' END AS state
        FROM orders, generate_series(1, version) AS v
    ) AS message, announcement(message_ref, code, placed_at, order_id, v, CASE WHEN order_id % 2 = 0 THEN '00-parent' END,
        CASE WHEN order_id % 4 = 0 THEN 'a=b' END) AS a;
"#;

/// The answer row by row, or its number of rows and a sum over all of them where they are too many for that.
async fn told(database: &Database, question: &str, count: i64) -> Vec<String> {
    let sum = format!(
        "SELECT count(*) || ' rows, ' || sum(hashtextextended(answer, 0)::numeric) FROM ({question}) AS rows (answer)"
    );
    let question = if count > 10_000 { &sum } else { question };
    sqlx::query_scalar(question).fetch_all(&database.pool).await.unwrap()
}

async fn messages(database: &Database, table: &str, count: i64) -> Vec<String> {
    let columns = r#"message_ref, order_id, activity_type_code, state, failures, last_error, key, value, headers, published_at,
        partition, "offset""#;
    told(database, &format!("SELECT row({columns})::text FROM {table} ORDER BY message_ref"), count).await
}

#[tokio::test]
async fn the_migration_to_the_log_carries_everything_over_and_back() {
    carries_over_and_back(3000).await;
}

#[tokio::test]
#[ignore = "minutes: make upgrade"]
async fn the_migration_to_the_log_carries_a_million_messages_over_and_back() {
    carries_over_and_back(1_000_000).await;
}

async fn carries_over_and_back(count: i64) {
    let before: Vec<_> = MIGRATIONS.iter().filter(|one| one.version <= BEFORE_THE_LOG).cloned().collect();
    let before = Migrator { migrations: before.into(), ..Migrator::DEFAULT };
    let database = Database::new(&before).await;
    database.execute(&OLD_ROWS.replace("COUNT", &count.to_string())).await;
    let lines = "SELECT row(order_id, array_agg(product_id ORDER BY line_number), array_agg(quantity ORDER BY line_number))::text
        FROM order_items GROUP BY order_id ORDER BY order_id";
    let (old_messages, old_lines) = (messages(&database, "outbox", count).await, told(&database, lines, count).await);
    for (table, rows) in [("outbox", count + count / 10), ("orders", count)] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {table}")).await, rows, "{table}");
    }
    let unpublished = "SELECT message_ref FROM outbox WHERE state = 'unpublished'";
    let unpublished: BTreeSet<Uuid> =
        sqlx::query_scalar(unpublished).fetch_all(&database.pool).await.unwrap().into_iter().collect();

    // Not while an old version runs.
    let mut owner = PgConnection::connect(&database.owner_url()).await.unwrap();
    let mut old = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(1768846196, 1)").execute(&mut old).await.unwrap();
    let refused = MIGRATIONS.run(&mut owner).await.unwrap_err().to_string();
    assert!(refused.contains("stop all of them"), "{refused}");
    assert_eq!(messages(&database, "outbox", count).await, old_messages, "nothing was changed");
    sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut old).await.unwrap();

    for _ in 0..2 {
        MIGRATIONS.run(&mut owner).await.unwrap();
        assert_eq!(messages(&database, "outbox_messages", count).await, old_messages);
        let now = "SELECT row(order_id, product_ids, quantities)::text FROM orders ORDER BY order_id";
        assert_eq!(told(&database, now, count).await, old_lines);
        // An old version that was paused wakes up.
        for statement in [
            "INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, owner, key, value, headers)
                VALUES (gen_random_uuid(), 1, 'ORDER_CREATED', now(), 0, '', '', '{}')",
            "UPDATE outbox SET owner = 1",
            "INSERT INTO order_items VALUES (1, 4, gen_random_uuid(), 1)",
        ] {
            assert!(sqlx::query(statement).execute(&mut old).await.is_err(), "{statement}");
        }
        MIGRATIONS.undo(&mut owner, BEFORE_THE_LOG).await.unwrap();
        assert_eq!(messages(&database, "outbox", count).await, old_messages);
        assert_eq!(told(&database, lines, count).await, old_lines);
    }

    MIGRATIONS.run(&mut owner).await.unwrap();
    let topic = Topic::new(6, &[]).await;
    let setup = binary().set("database.url", database.url()).set("kafka.brokers", &topic.brokers);
    let service = setup.set("kafka.topic", &topic.name).start().await;
    let left = "SELECT count(*) FROM instances WHERE instance_id = 0 AND done_at IS NULL";
    wait_until("what was unpublished is published", seconds(120), async || database.number(left).await == 0).await;
    assert_eq!(service.stop().await, Some(0));
    let sent: Vec<_> = topic.dump().await.iter().filter_map(testing::Received::message_ref).collect();
    assert_eq!((sent.len(), sent.into_iter().collect()), (unpublished.len(), unpublished), "each once, and no other");
}

/// Of the first messages one each, and a later place of the fourth, as a rebroadcast gives it.
const DECIDED: &str = "
    INSERT INTO rejected_messages (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at,
        format, failures, last_error, state, discarded_at, discarded_by, discard_reason)
    SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at,
        format, 10, 'message size too large', state, discarded_at, discarded_by, discard_reason
    FROM (SELECT *, row_number() OVER (ORDER BY message_ref) AS n FROM outbox) AS m
    JOIN (VALUES (1, 'failed', NULL, NULL, NULL), (2, 'retrying', NULL, NULL, NULL), (3, 'discarded', now(), 'me', 'a test'))
        AS decided (n, state, discarded_at, discarded_by, discard_reason) USING (n);
    INSERT INTO published (instance, block, seqs, partitions, offsets, published_at)
    SELECT instance, seq / 4096, ARRAY[(seq % 4096)::smallint], ARRAY[5], ARRAY[4711::bigint], now() + interval '1 second'
    FROM outbox ORDER BY message_ref LIMIT 1 OFFSET 3";

#[tokio::test]
async fn what_several_instances_have_left_is_carried_back_whatever_became_of_it() {
    let world = World::new().await;
    for _ in 0..2 {
        let service = world.setup().start().await;
        world.client(&service).load(20, 4).await;
        world.at_rest(seconds(10)).await;
        assert_eq!(service.stop().await, Some(0));
    }
    world.has_no_sessions().await;
    world.database.execute(DECIDED).await;
    let rows = |table: &str| {
        // One that was discarded is failed again.
        format!(
            r#"SELECT row(message_ref, order_id, activity_type_code, replace(state, 'discarded', 'failed'), failures,
                last_error, key, value, headers, published_at, partition, "offset")::text FROM {table} ORDER BY message_ref"#
        )
    };
    let left = told(&world.database, &rows("outbox_messages"), 40).await;
    assert_eq!(left.len(), 40);
    assert!(left[3].ends_with(",5,4711)"), "{}", left[3]);
    let mut owner = PgConnection::connect(&world.database.owner_url()).await.unwrap();
    for _ in 0..2 {
        MIGRATIONS.undo(&mut owner, BEFORE_THE_LOG).await.unwrap();
        assert_eq!(told(&world.database, &rows("outbox"), 40).await, left);
        MIGRATIONS.run(&mut owner).await.unwrap();
        assert_eq!(told(&world.database, &rows("outbox_messages"), 40).await, left);
    }
    world.without_judgement();
}

#[tokio::test]
async fn a_database_that_is_not_utf8_is_refused_by_migrate_and_serve_and_nothing_is_changed() {
    let world = World::new().await;
    let name = format!("{}_latin", world.database.url().rsplit('/').next().unwrap());
    let make = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    world.database.execute(&make).await;
    let url = world.database.owner_url().rsplit_once('/').map(|(server, _)| format!("{server}/{name}")).unwrap();
    for command in ["migrate", "serve"] {
        let done = world.setup().set("database.url", &url).run(&[command]).await;
        assert_eq!(done.status.code(), Some(2), "{command}");
        let told = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        assert_eq!(told.matches("has the encoding LATIN1, but UTF8 is needed").count(), 1, "{told}");
    }
    world.database.execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn migrate_says_once_what_it_may_not_do_and_shows_no_statement() {
    let database = Database::empty().await;
    let done = binary().set("database.url", database.url()).run(&["migrate"]).await;
    assert_eq!(done.status.code(), Some(1));
    let told = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    assert_eq!(told.matches("permission denied").count(), 1, "{told}");
    assert!(!told.contains("CREATE TABLE"), "{told}");
}

#[tokio::test]
async fn the_tables_of_another_program_are_left_alone() {
    leaves_tables_of_others_alone(&binary(), "migrations/activity", &["messages", "list"]).await;
}

#[tokio::test]
async fn a_search_path_that_leads_elsewhere_is_told_and_nothing_is_begun_anew() {
    begins_nothing_anew_by_itself(&binary(), &MIGRATIONS, "order_number").await;
}

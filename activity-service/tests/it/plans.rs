//! How Postgres carries out what is asked of large tables: measured, on tables that have grown behind their statistics.

use sqlx::raw_sql;
use testing::plans::{JIT_ABOVE_COST, measured, plan, statements};

use crate::world::World;

#[tokio::test]
async fn what_is_asked_of_large_tables_reads_what_it_answers_and_little_more() {
    reads_little_more_than_it_answers(80_000).await;
}

#[tokio::test]
#[ignore = "takes minutes: make plans"]
async fn so_it_does_of_a_million_rows() {
    reads_little_more_than_it_answers(1_000_000).await;
}

async fn reads_little_more_than_it_answers(rows_of_each: u32) {
    let world = World::new(1).await;
    for table in ["quarantine", "quarantine_copies", "processed_messages_undated", "message_copies"] {
        world.database.execute(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
    }
    world.database.execute("ANALYZE").await;
    let beyond = rows_of_each + 20_000;
    for statement in [
        // Most are discarded, at one time, and can still be read; the last thousand cannot.
        r#"INSERT INTO quarantine (quarantine_id, topic, partition, "offset", value, reason, detail, identity, state,
            resolved_at, resolved_by, resolution)
        SELECT gen_random_uuid(), 't', 0, BEYOND - i, 'x', 'unknown type', '', sha256(i::text::bytea),
            CASE WHEN i % 50 = 0 THEN 'waiting' ELSE 'discarded' END,
            CASE WHEN i % 50 <> 0 THEN now() - interval '40 days' + i / 50000 * interval '1 minute' END,
            CASE WHEN i % 50 <> 0 THEN 'somebody' END, CASE WHEN i % 50 <> 0 THEN 'for a test' END
        FROM generate_series(1, ROWS) i"#,
        r#"INSERT INTO processed_messages
            (message_ref, undated, activity_type_code, activity_date, activity_at, topic, partition, "offset", processed_at)
        SELECT gen_random_uuid(), true, 'ORDER_CREATED', '2026-11-20', now(), 't', 0, i,
            now() - interval '40 days' + i * interval '1 second'
        FROM generate_series(1, ROWS) i"#,
        r#"INSERT INTO quarantine_copies (quarantine_id, topic, partition, last_offset, messages)
        SELECT gen_random_uuid(), 't', 0, i, 1 FROM generate_series(1, ROWS) i"#,
        r#"INSERT INTO message_copies (message_ref, topic, partition, "offset")
        SELECT gen_random_uuid(), 't', 0, i FROM generate_series(1, ROWS) i"#,
    ] {
        let statement = statement.replace("ROWS", &rows_of_each.to_string()).replace("BEYOND", &beyond.to_string());
        world.database.execute(&statement).await;
    }
    let mut connection = world.database.pool.acquire().await.unwrap();
    raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    let statements = statements(&["activity-service/.sqlx"]);
    let begin = "timestamptz 'epoch'";
    let low = |offset: u32| format!("ARRAY['t'], ARRAY[0], ARRAY[{offset}::bigint]");
    let nil = uuid::Uuid::nil();
    let middle = "now() - interval '40 days' + interval '40000 seconds'";
    let (quarantine, keys) = ("DELETE FROM quarantine WHERE quarantine_id = ANY", "FROM processed_messages_undated\n");
    let due = "now() - interval '30 days'";
    let scrape = r#"SELECT reason AS "reason!""#;
    // Each that waits, by the index that has no others; where more wait than are told, pages of those that are told.
    let (waiting, told) = (rows_of_each / 50, 10_001);
    let scraped = if waiting > told {
        (f64::from(waiting + told), i64::from(told) + 100)
    } else {
        (f64::from(rows_of_each) / 40.0, 4_000)
    };
    for (question, parameters, rows, buffers) in [
        // None of the page may go, then each.
        (quarantine, format!("{due}, 1000, {}, {begin}, '{nil}'", low(0)), 8_000.0, 12_000),
        (quarantine, format!("{due}, 1000, {}, {begin}, '{nil}'", low(beyond)), 12_000.0, 40_000),
        (keys, format!("{due}, {begin}, '{nil}', 1000, {}", low(0)), 6_000.0, 12_000),
        (keys, format!("{due}, {middle}, '{nil}', 1000, {}", low(beyond)), 12_000.0, 40_000),
        (scrape, "ARRAY['unknown_type', 'not_json']".to_owned(), scraped.0, scraped.1),
        // Nothing is due.
        ("SELECT min(resolved_at)", "now() - interval '50 days', now() - interval '50 days'".to_owned(), 10.0, 50),
    ] {
        let (read, touched) = measured(&mut connection, &statements, question, &parameters).await;
        println!("{question} ({parameters}): {read} rows, {touched} buffers");
        assert!(read <= rows, "{question} ({parameters}): {read} rows are read, of {rows} at most");
        assert!(touched <= buffers, "{question} ({parameters}): {touched} buffers, of {buffers} at most");
    }
    // As a batch asks that comes while the quarantine is not empty: planned with its values.
    raw_sql("SET plan_cache_mode = force_custom_plan").execute(&mut *connection).await.unwrap();
    let known = "SELECT identity, quarantine_id, reason_code";
    let wanted = "SELECT quote_literal(array_agg(sha256(i::text::bytea))::text) FROM generate_series(1, 100) i";
    let wanted: String = sqlx::query_scalar(wanted).fetch_one(&mut *connection).await.unwrap();
    let (read, touched) = measured(&mut connection, &statements, known, &wanted).await;
    println!("{known}: {read} rows, {touched} buffers");
    assert!(read <= 1_000.0 && touched <= 3_000, "{known}: {read} rows, {touched} buffers");
    // Nobody has turned it off behind some poolers: Postgres would compile what costs more.
    world.database.execute("ANALYZE").await;
    raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    for statement in &statements {
        let plan = plan(&mut connection, statement).await;
        let cost = plan["Total Cost"].as_f64().unwrap();
        assert!(cost < JIT_ABOVE_COST, "it costs {cost}: {statement}\n{plan:#}");
    }
    drop(connection);
    world.database.execute("TRUNCATE quarantine, quarantine_copies, processed_messages, message_copies").await;
    world.judge().await;
}

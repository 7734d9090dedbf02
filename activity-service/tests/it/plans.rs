//! How Postgres carries out what is asked of large tables: measured, on tables that have grown behind their statistics.

use std::{fs, path::Path};

use serde_json::Value;
use sqlx::{PgConnection, Row, raw_sql};

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
    let begin = "timestamptz 'epoch'";
    let low = |offset: u32| format!("ARRAY['t'], ARRAY[0], ARRAY[{offset}::bigint]");
    let nil = uuid::Uuid::nil();
    let middle = "now() - interval '40 days' + interval '40000 seconds'";
    let (quarantine, keys) = ("DELETE FROM quarantine WHERE quarantine_id = ANY", "FROM processed_messages_undated\n");
    let due = "now() - interval '30 days'";
    let scrape = r#"SELECT reason AS "reason!""#;
    for (question, parameters, rows, buffers) in [
        // None of the page may go, then each.
        (quarantine, format!("{due}, 1000, {}, {begin}, '{nil}'", low(0)), 8_000.0, 12_000),
        (quarantine, format!("{due}, 1000, {}, {begin}, '{nil}'", low(beyond)), 12_000.0, 40_000),
        (keys, format!("{due}, {begin}, '{nil}', 1000, {}", low(0)), 6_000.0, 12_000),
        (keys, format!("{due}, {middle}, '{nil}', 1000, {}", low(beyond)), 12_000.0, 40_000),
        // Each that waits, by the index that has no others.
        (scrape, "ARRAY['unknown_type', 'not_json']".to_owned(), f64::from(rows_of_each) / 40.0, 4_000),
        // Nothing is due.
        ("SELECT min(resolved_at)", "now() - interval '50 days', now() - interval '50 days'".to_owned(), 10.0, 50),
    ] {
        let (read, touched) = measured(&mut connection, question, &parameters).await;
        println!("{question} ({parameters}): {read} rows, {touched} buffers");
        assert!(read <= rows, "{question} ({parameters}): {read} rows are read, of {rows} at most");
        assert!(touched <= buffers, "{question} ({parameters}): {touched} buffers, of {buffers} at most");
    }
    // As a batch asks that comes while the quarantine is not empty: planned with its values.
    raw_sql("SET plan_cache_mode = force_custom_plan").execute(&mut *connection).await.unwrap();
    let known = "SELECT identity, quarantine_id, reason_code";
    let wanted = "SELECT quote_literal(array_agg(sha256(i::text::bytea))::text) FROM generate_series(1, 100) i";
    let wanted: String = sqlx::query_scalar(wanted).fetch_one(&mut *connection).await.unwrap();
    let (read, touched) = measured(&mut connection, known, &wanted).await;
    println!("{known}: {read} rows, {touched} buffers");
    assert!(read <= 1_000.0 && touched <= 3_000, "{known}: {read} rows, {touched} buffers");
    drop(connection);
    world.database.execute("TRUNCATE quarantine, quarantine_copies, processed_messages, message_copies").await;
    world.judge().await;
}

/// How many rows, and how many pages of tables and indexes, the statement that has `part` in it reads with these
/// parameters. What it changes is undone.
async fn measured(connection: &mut PgConnection, part: &str, parameters: &str) -> (f64, i64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let texts = files.map(|text| serde_json::from_str::<Value>(&text).unwrap()["query"].as_str().unwrap().to_owned());
    let found: Vec<_> = texts.filter(|text| text.contains(part)).collect();
    assert_eq!(found.len(), 1, "{part} is in one statement: {found:?}");
    raw_sql(&format!("PREPARE one AS {}; BEGIN", found[0])).execute(&mut *connection).await.unwrap();
    let parameters = if parameters.is_empty() { String::new() } else { format!("({parameters})") };
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE one{parameters}");
    let lines = raw_sql(&explain).fetch_all(&mut *connection).await.unwrap();
    let plan = lines[0].get::<Value, _>(0)[0]["Plan"].take();
    raw_sql("ROLLBACK; DEALLOCATE one").execute(&mut *connection).await.unwrap();
    let buffers = |kind: &str| plan[format!("Shared {kind} Blocks")].as_i64().unwrap();
    (rows(&plan), buffers("Hit") + buffers("Read"))
}

/// Rows that were given out or thrown away wherever a table or an index is read.
fn rows(plan: &Value) -> f64 {
    let number = |name: &str| plan[name].as_f64().unwrap_or(0.0);
    let is_of_a_table = plan["Node Type"].as_str().is_some_and(|kind| kind.contains("Scan"))
        && !(plan["Relation Name"].is_null() && plan["Index Name"].is_null());
    let thrown_away = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let here = if is_of_a_table { (number("Actual Rows") + thrown_away) * number("Actual Loops") } else { 0.0 };
    here + plan["Plans"].as_array().into_iter().flatten().map(rows).sum::<f64>()
}

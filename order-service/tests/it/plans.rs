//! How Postgres carries out the service's statements: by the plans that hold for any parameters, with
//! statistics of a normal day and with those of a long outage.

use serde_json::Value;
use sqlx::raw_sql;
use testing::plans::{JIT_ABOVE_COST, measured, plan, scans, statements};

use crate::world::{World, insertion};

/// They grow for as long as the service runs.
const LARGE: [&str; 4] = ["outbox", "published", "orders", "idempotency_keys"];

/// Every statement of the service and of its outbox is checked in here.
const QUERY_DATA: [&str; 2] = ["order-service/.sqlx", "shared/outbox/.sqlx"];

/// Holds: No statement reads a table of orders or messages from its beginning, whatever the statistics say.
#[tokio::test]
async fn no_statement_reads_a_large_table_from_its_beginning() {
    let world = World::new().await;
    let mut connection = world.database.pool.acquire().await.unwrap();
    raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    let statements = statements(&QUERY_DATA);
    world.database.execute(&insertion(50_000, 900)).await;
    world.database.execute("INSERT INTO instances (instance_id) VALUES (900), (901)").await;
    let keys = "INSERT INTO idempotency_keys SELECT sha256(order_id::text::bytea), sha256('body'), order_id,
        placed_at - order_id / 64 * interval '10 milliseconds' FROM orders";
    world.database.execute(keys).await;
    // Little is published, then nearly everything.
    for published in ["seq % 10 = 0", "seq % 10 <> 0 AND seq % 1000 <> 1"] {
        let publish = format!(
            "INSERT INTO published (instance, block, seqs, partitions, offsets, settled_to)
            SELECT instance, seq / 4096, array_agg((seq % 4096)::smallint), array_agg(0), array_agg(seq), 0
            FROM outbox WHERE {published} GROUP BY instance, seq / 4096, seq / 64"
        );
        world.database.execute(&publish).await;
        world.database.execute("VACUUM (ANALYZE)").await;
        for statement in &statements {
            let plan = plan(&mut connection, statement).await;
            let reads_whole = scans(&plan).into_iter().any(is_of_a_whole_table);
            // An operator asks how many there are, and waits for it.
            let is_long = statement.contains("SELECT count(*)");
            assert!(!reads_whole || is_long, "{statement}\n{plan:#}");
            let cost = plan["Total Cost"].as_f64().unwrap();
            assert!(cost < JIT_ABOVE_COST || is_long, "it costs {cost}: {statement}\n{plan:#}");
        }
    }
    drop(connection);
    world.database.execute("TRUNCATE orders, outbox, published, idempotency_keys").await;
    world.judge_nothing_placed().await;
}

/// Tables that have grown behind their statistics, skewed: nearly all orders are of one customer and of one status.
async fn grown(world: &World, orders: u64) {
    let statistics = "SELECT format('ALTER TABLE %s SET (autovacuum_enabled = off)', oid::regclass) FROM pg_class
        WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace";
    let tables: Vec<String> = sqlx::query_scalar(statistics).fetch_all(&world.database.pool).await.unwrap();
    for table in tables {
        world.database.execute(&table).await;
    }
    world.database.execute(&insertion(100, 900)).await;
    world.database.execute("ANALYZE").await;
    world.database.execute(&insertion(orders, 900)).await;
    world.database.execute("INSERT INTO instances (instance_id) VALUES (900)").await;
    let settled_to = orders - 1000;
    let published = format!(
        "INSERT INTO published (instance, block, seqs, partitions, offsets, settled_to)
            SELECT instance, seq / 4096, array_agg((seq % 4096)::smallint), array_agg(0), array_agg(seq), {settled_to}
            FROM outbox WHERE seq < {settled_to} GROUP BY instance, seq / 4096, seq / 64"
    );
    for statement in [
        "UPDATE orders SET customer_ref = 'whale' WHERE order_id % 100 <> 0",
        "UPDATE orders SET status = 'Cancelled' WHERE order_id = 5",
        // Not in the order of their time: each entry of an index leads to another page.
        "INSERT INTO idempotency_keys SELECT sha256(order_id::text::bytea), sha256('body'), order_id,
            now() - interval '30 days' + order_id * interval '1 second' FROM orders ORDER BY 1",
        &published,
    ] {
        world.database.execute(statement).await;
    }
}

/// Holds: A page of a list, or of a purge, reads neither what lies before it nor for long what is rare.
#[tokio::test]
async fn what_is_asked_of_large_tables_reads_what_it_answers_and_little_more() {
    reads_little_more_than_it_answers(120_000).await;
}

#[tokio::test]
#[ignore = "takes minutes: make plans"]
async fn so_it_does_of_a_million_rows() {
    reads_little_more_than_it_answers(1_000_000).await;
}

async fn reads_little_more_than_it_answers(orders: u64) {
    const EVER: &str = "timestamptz '0001-01-01', timestamptz '9999-12-31', 0";
    let world = World::new().await;
    grown(&world, orders).await;
    let statements = statements(&QUERY_DATA);
    let mut connection = world.database.pool.acquire().await.unwrap();
    raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    let of_all = "SELECT * FROM orders WHERE placed_at >= $1";
    let of_customer = "SELECT * FROM orders WHERE customer_ref = $1";
    let purge = "DELETE FROM idempotency_keys";
    let floor = "ORDER BY placed_at DESC, order_id DESC OFFSET $4";
    let span = "now() - interval '1 hour', now() + interval '1 hour'";
    let (looked_at, rebroadcast) = ("ORDER BY message_ref OFFSET $3 LIMIT 1", "m.format <= $5");
    let nil = uuid::Uuid::nil();
    let thousandth = "SELECT message_ref FROM outbox ORDER BY message_ref OFFSET 999 LIMIT 1";
    let thousandth: uuid::Uuid = sqlx::query_scalar(thousandth).fetch_one(&mut *connection).await.unwrap();
    let later = "now() + interval '1 hour', now() + interval '2 hours'";
    let scrape = "is_unowned";
    // What a page looks at for a status that few orders have. For each there is an entry of a row that is dead.
    let (bound, twice) = (50_100.0, 105_000);
    for (question, parameters, rows, buffers) in [
        (of_all, format!("{EVER}, NULL, 51, 50000"), 110.0, 200),
        (of_all, format!("{EVER}, 'Cancelled', 51, 50000"), 2.0 * bound, twice),
        (of_customer, format!("'whale', {EVER}, NULL, 51, 50000"), 110.0, 200),
        (of_customer, format!("'whale', {EVER}, 'Cancelled', 51, 50000"), 2.0 * bound, twice),
        (of_customer, format!("'nobody', {EVER}, NULL, 51, 50000"), 0.0, 10),
        (floor, format!("{EVER}, 50000"), bound, twice),
        (purge, "604800, 1000, timestamptz '0001-01-01'".to_owned(), 4_000.0, 10_000),
        (scrape, String::new(), 5_000.0, 2_000),
        (looked_at, format!("'{nil}', now() + interval '1 hour', 19999"), 20_100.0, 41_000),
        (rebroadcast, format!("'{nil}', {span}, 500, 1, '{}'", uuid::Uuid::max()), 2_000.0, 4_000),
        // Nothing of what is looked at is in the span.
        (rebroadcast, format!("'{nil}', {later}, 500, 1, '{thousandth}'"), 1_100.0, 2_200),
    ] {
        let (read, touched) = measured(&mut connection, &statements, question, &parameters).await;
        println!("{question} ({parameters}): {read} rows, {touched} buffers");
        assert!(read <= rows, "{question} ({parameters}): {read} rows are read, of {rows} at most");
        assert!(touched <= buffers, "{question} ({parameters}): {touched} buffers, of {buffers} at most");
    }
    // Somebody keeps a snapshot: what was purged is still there, and a page begins behind it.
    let mut held = world.database.pool.begin().await.unwrap();
    raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM orders LIMIT 1")
        .execute(&mut *held)
        .await
        .unwrap();
    let gone = "DELETE FROM idempotency_keys WHERE placed_at < now() - interval '29 days' RETURNING placed_at";
    let gone: Vec<time::OffsetDateTime> = sqlx::query_scalar(gone).fetch_all(&mut *connection).await.unwrap();
    assert!(gone.len() > 50_000, "{}", gone.len());
    let last = gone.iter().max().unwrap();
    let behind = format!("604800, 1000, timestamptz '{last}'");
    let (read, touched) = measured(&mut connection, &statements, purge, &behind).await;
    println!("behind what is dead: {read} rows, {touched} buffers");
    assert!(read <= 4_000.0 && touched <= 10_000, "behind what is dead: {read} rows, {touched} buffers");
    held.rollback().await.unwrap();
    drop(connection);
    world.database.execute("TRUNCATE orders, outbox, published, idempotency_keys").await;
    world.judge_nothing_placed().await;
}

fn is_of_a_whole_table(scan: &Value) -> bool {
    let (table, index) = (scan["Relation Name"].as_str(), scan["Index Name"].as_str());
    match scan["Node Type"].as_str() {
        Some("Seq Scan") => table.is_some_and(|table| LARGE.contains(&table) || is_todays(table)),
        _ => {
            index.is_some_and(|index| LARGE.iter().any(|table| index.starts_with(table)))
                && scan["Index Cond"].is_null()
        }
    }
}

/// Of the partitions this one has rows; another one may be read as it pleases.
fn is_todays(table: &str) -> bool {
    let now = time::OffsetDateTime::now_utc().date();
    let day = format!("_{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    table.ends_with(&day)
}

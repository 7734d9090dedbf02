//! How Postgres carries out the service's statements: by the plans that hold for any parameters, with
//! statistics of a normal day and with those of a long outage.

use std::{fs, path::Path};

use serde_json::Value;
use sqlx::{PgConnection, Row, raw_sql};

use crate::world::{World, insertion};

/// They grow for as long as the service runs.
const LARGE: [&str; 4] = ["outbox", "published", "orders", "idempotency_keys"];

/// Holds: No statement reads a table of orders or messages from its beginning, whatever the statistics say.
#[tokio::test]
async fn no_statement_reads_a_large_table_from_its_beginning() {
    let world = World::new().await;
    let mut connection = world.database.pool.acquire().await.unwrap();
    raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    let statements = statements();
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
            assert!(!reads_whole || statement.contains("SELECT count(*)"), "{statement}\n{plan:#}");
        }
    }
    drop(connection);
    world.database.execute("TRUNCATE orders, outbox, published, idempotency_keys").await;
    world.judge_nothing_placed().await;
}

/// Every statement of the service and of its outbox, as checked in for their builds.
fn statements() -> Vec<String> {
    let folders = [".sqlx", "../shared/outbox/.sqlx"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let texts = files.map(|text| serde_json::from_str::<Value>(&text).unwrap()["query"].as_str().unwrap().to_owned());
    // What only changes the session has no plan.
    texts.filter(|text| !text.starts_with("SET ")).collect()
}

async fn plan(connection: &mut PgConnection, statement: &str) -> Value {
    raw_sql(&format!("PREPARE one AS {statement}")).execute(&mut *connection).await.unwrap();
    let count = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'one'";
    let count: i32 = sqlx::query_scalar(count).fetch_one(&mut *connection).await.unwrap();
    let nulls = vec!["NULL"; usize::try_from(count).unwrap()].join(", ");
    let parameters = if count > 0 { format!("({nulls})") } else { nulls };
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE one{parameters}; DEALLOCATE one");
    let lines = raw_sql(&explain).fetch_all(&mut *connection).await.unwrap();
    lines[0].get::<Value, _>(0)[0]["Plan"].take()
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

/// Everything in a plan that reads a table or an index.
fn scans(plan: &Value) -> Vec<&Value> {
    let below = plan["Plans"].as_array().into_iter().flatten().flat_map(scans);
    let this = plan["Node Type"].as_str().is_some_and(|kind| kind.contains("Scan")).then_some(plan);
    this.into_iter().chain(below).collect()
}

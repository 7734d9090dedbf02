//! How Postgres carries out the statements of a service: all of them stand in the query data its build reads.

use std::fs;

use serde_json::Value;
use sqlx::{PgConnection, Row, raw_sql};

use crate::root;

/// `jit_above_cost` as Postgres has it by default: where nobody has turned it off, it compiles what costs more.
pub const JIT_ABOVE_COST: f64 = 100_000.0;

/// Every statement in these folders of query data, named from the root of the workspace.
#[must_use]
pub fn statements(folders: &[&str]) -> Vec<String> {
    let files = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let files = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let texts = files.map(|text| serde_json::from_str::<Value>(&text).unwrap()["query"].as_str().unwrap().to_owned());
    // What only changes the session, or locks, has no plan.
    texts.filter(|text| !["SET ", "LOCK "].iter().any(|begin| text.starts_with(begin))).collect()
}

/// The plan of a statement for any parameters, where the connection is set to `force_generic_plan`.
pub async fn plan(connection: &mut PgConnection, statement: &str) -> Value {
    raw_sql(&format!("PREPARE one AS {statement}")).execute(&mut *connection).await.unwrap();
    let count = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'one'";
    let count: i32 = sqlx::query_scalar(count).fetch_one(&mut *connection).await.unwrap();
    let nulls = vec!["NULL"; usize::try_from(count).unwrap()].join(", ");
    let plan = explained(connection, "FORMAT JSON", &nulls).await;
    raw_sql("DEALLOCATE one").execute(connection).await.unwrap();
    plan
}

/// How many rows, and how many pages of tables and indexes, the one of these statements that has `part` in it reads with
/// these parameters. What it changes is undone.
pub async fn measured(
    connection: &mut PgConnection,
    statements: &[String],
    part: &str,
    parameters: &str,
) -> (f64, i64) {
    let found: Vec<_> = statements.iter().filter(|statement| statement.contains(part)).collect();
    assert_eq!(found.len(), 1, "{part} is in one statement: {found:?}");
    raw_sql(&format!("PREPARE one AS {}; BEGIN", found[0])).execute(&mut *connection).await.unwrap();
    let plan = explained(connection, "ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON", parameters).await;
    raw_sql("ROLLBACK; DEALLOCATE one").execute(connection).await.unwrap();
    let rows = scans(&plan).into_iter().map(read_by).sum();
    let buffers = |kind: &str| plan[format!("Shared {kind} Blocks")].as_i64().unwrap();
    (rows, buffers("Hit") + buffers("Read"))
}

async fn explained(connection: &mut PgConnection, options: &str, parameters: &str) -> Value {
    let parameters = if parameters.is_empty() { String::new() } else { format!("({parameters})") };
    let explain = format!("EXPLAIN ({options}) EXECUTE one{parameters}");
    let lines = raw_sql(&explain).fetch_all(connection).await.unwrap();
    lines[0].get::<Value, _>(0)[0]["Plan"].take()
}

/// Everything in a plan that reads a table or an index.
#[must_use]
pub fn scans(plan: &Value) -> Vec<&Value> {
    let below = plan["Plans"].as_array().into_iter().flatten().flat_map(scans);
    let this = plan["Node Type"].as_str().is_some_and(|kind| kind.contains("Scan")).then_some(plan);
    this.into_iter().chain(below).collect()
}

/// Rows that a scan gave out or threw away.
fn read_by(scan: &Value) -> f64 {
    let number = |name: &str| scan[name].as_f64().unwrap_or(0.0);
    // Of a table or an index: what is scanned of other steps was read there.
    if scan["Relation Name"].is_null() && scan["Index Name"].is_null() {
        return 0.0;
    }
    let thrown_away = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    (number("Actual Rows") + thrown_away) * number("Actual Loops")
}

//! Orders placed over HTTP, announced and all, against pgbench: the same orders by one statement each on the tables of
//! before the log, and its own TPC-B-like transactions.

use anyhow::{Context, Result, ensure};
use order_service::app::MIGRATIONS;
use sqlx::migrate::Migration;
use testing::Database;

use crate::{
    figures::{Aim, Figure, Report},
    orders,
    pairs::rounds,
    pgbench,
    scale::Scale,
};

/// The last migration of commit c7d43a1, from before the outbox was a log.
const BEFORE_THE_LOG: i64 = 20_261_125_000_002;
const ORDER: &str = include_str!("../../../dev/peers/order.sql");
const CONNECTIONS: [(usize, f64); 2] = [(32, 2.0), (128, 3.0)];

#[derive(Clone, Copy)]
enum Placing {
    OrderService,
    Statement,
    TpcB,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    eprintln!("placing: making pgbench's own tables");
    let accounts = Database::empty().await;
    let branches = format!("--scale={}", scale.branches);
    pgbench::program(&accounts, &accounts.superuser_url(), &["--initialize", "--quiet", &branches]).await?;
    let (mut figures, mut load) = (Vec::new(), Vec::new());
    for (connections, goal) in CONNECTIONS {
        let scale = Scale { connections, ..scale.clone() };
        let contenders = [Placing::OrderService, Placing::Statement, Placing::TpcB];
        let name = format!("placing over {connections}");
        let all = rounds(&name, scale.rounds, &contenders, async |placing| match placing {
            Placing::OrderService => orders::by_service(&scale).await,
            Placing::Statement => by_statement(&scale).await,
            Placing::TpcB => by_tpc_b(&accounts, &scale).await,
        })
        .await?;
        let [own, statement, tpc_b] = all.runs.as_slice() else { unreachable!("there are three") };
        let of = |runs: &[f64]| runs.to_vec();
        figures.extend([
            Figure::new(format!("POST /orders, {connections} connections"), "orders/s", of(own)),
            Figure::new(format!("pgbench, single statement, {connections} connections"), "orders/s", of(statement)),
            Figure::new(format!("pgbench, TPC-B-like, {connections} connections"), "transactions/s", of(tpc_b)),
            Figure::quotient(
                format!("orders/s to the single statement, {connections} connections"),
                own,
                statement,
                |run| *run,
            )
            .aim(Aim::AtLeast(goal)),
            Figure::quotient(format!("orders/s to TPC-B-like, {connections} connections"), own, tpc_b, |run| *run)
                .aim(Aim::AtLeast(3.0)),
        ]);
        load.extend(all.load);
    }
    Ok(Report {
        name: "placing",
        about: "orders of 2 items: by POST /orders, published as well; by pgbench, one a statement on the tables of commit c7d43a1, with its message; beside them pgbench's TPC-B-like transactions",
        figures,
        load,
    })
}

async fn by_statement(scale: &Scale) -> Result<f64> {
    let database = Database::empty().await;
    let of_before = |one: &&Migration| one.migration_type.is_up_migration() && one.version <= BEFORE_THE_LOG;
    for migration in MIGRATIONS.iter().filter(of_before) {
        database.execute(&migration.sql).await;
    }
    // Compiling the statement costs more than running it.
    database.execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$").await;
    database.execute("CHECKPOINT").await;
    let done = pgbench::run_script(&database, &database.superuser_url(), ORDER, scale).await?;
    eprintln!("  pgbench, single statement: {:.0} orders/s", done.per_second);
    let complete = "SELECT count(*) FROM orders o WHERE number_of_items = 2
        AND (SELECT count(*) FROM order_items i WHERE i.order_id = o.order_id) = 2
        AND (SELECT count(*) FROM announced a WHERE a.order_id = o.order_id AND a.messages = 1) = 1";
    let announced = "CREATE TABLE announced AS SELECT order_id, count(*) AS messages FROM outbox GROUP BY order_id;
        CREATE INDEX ON announced (order_id); ANALYZE announced";
    database.execute(announced).await;
    let complete = database.number(complete).await;
    ensure!(complete == done.orders, "pgbench placed {} orders, {complete} are complete", done.orders);
    Ok(done.per_second)
}

async fn by_tpc_b(accounts: &Database, scale: &Scale) -> Result<f64> {
    accounts.execute("CHECKPOINT").await;
    let rows = "SELECT count(*) FROM pgbench_history";
    let before = accounts.number(rows).await;
    let url = accounts.superuser_url();
    let done = pgbench::timed(accounts, &url, scale, &["--builtin=tpcb-like"]).await.context("TPC-B-like")?;
    eprintln!("  pgbench, TPC-B-like: {:.0} transactions/s", done.per_second);
    let written = accounts.number(rows).await - before;
    ensure!(written == done.orders, "pgbench did {} transactions, {written} are there", done.orders);
    Ok(done.per_second)
}

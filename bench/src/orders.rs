//! POST /orders against pgbench inserting the same rows by the same statement.

use anyhow::{Context, Result, ensure};
use testing::{Database, Topic};

use crate::{
    announced, client,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    pgbench,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

pub async fn measure(scale: &Scale) -> Result<Report> {
    let pairs =
        interleaved("orders", scale.pairs, async || by_service(scale).await, async || by_pgbench(scale).await).await?;
    let (service, pgbench) = (|pair: &(f64, f64)| pair.0, |pair: &(f64, f64)| pair.1);
    Ok(Report {
        name: "orders",
        about: "orders of 2 items placed; the service also publishes and marks their messages",
        figures: vec![
            Figure::new("POST /orders", "orders/s", pairs.runs.iter().map(service)),
            Figure::new("pgbench, one order a statement", "orders/s", pairs.runs.iter().map(pgbench)),
            Figure::ratio("POST /orders to pgbench", &pairs.runs, service, pgbench).aim(Aim::AtLeast(0.7)),
        ],
        load: pairs.load,
    })
}

/// In orders a second.
pub async fn by_service(scale: &Scale) -> Result<f64> {
    let (database, topic) = start().await;
    let service = services::order_service(&database, &topic)?.start().await;
    database.execute("CHECKPOINT").await;
    let mut placed = client::place_for(scale.orders_for, scale.connections, client::address(&service)?).await?;
    eprintln!("  POST /orders: {:.0} orders/s", placed.per_second());
    announced::settled(&database).await;
    services::stop(service).await?;

    placed.orders.sort_unstable();
    let found = complete(&database).await?;
    ensure!(
        found == placed.orders,
        "{} orders were answered 201, {} are complete, or not the same ones",
        placed.orders.len(),
        found.len()
    );
    announced::check(&database, &topic).await?;
    topic.delete().await;
    Ok(placed.per_second())
}

async fn by_pgbench(scale: &Scale) -> Result<f64> {
    let (database, topic) = start().await;
    topic.delete().await;
    database.execute("CHECKPOINT").await;
    let done = pgbench::run(&database, scale).await?;
    eprintln!("  pgbench: {:.0} orders/s", done.per_second);
    let found = i64::try_from(complete(&database).await?.len()).context("too many orders")?;
    ensure!(found == done.orders, "pgbench placed {} orders, {found} are complete", done.orders);
    Ok(done.per_second)
}

async fn start() -> (Database, Topic) {
    (Database::new(&order_service::app::MIGRATIONS).await, Topic::new(PARTITIONS, &[]).await)
}

/// The numbers of all orders. An error where one has not exactly two items and one message, or where
/// there is an item or a message without an order.
async fn complete(database: &Database) -> Result<Vec<i64>> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        r#"
        SELECT order_id, coalesce(o.lines, 0)::bigint, coalesce(m.messages, 0)
        FROM (SELECT order_id, cardinality(product_ids) AS lines FROM orders WHERE number_of_items = 2) AS o
        FULL JOIN (SELECT order_id, count(*) AS messages FROM outbox GROUP BY order_id) AS m USING (order_id)
        ORDER BY order_id
        "#,
    )
    .fetch_all(&database.pool)
    .await
    .context("the orders")?;
    if let Some((order, lines, messages)) = rows.iter().find(|row| (row.1, row.2) != (2, 1)) {
        ensure!(false, "order {order} has {lines} items and {messages} messages");
    }
    let orders = database.number("SELECT count(*) FROM orders").await;
    ensure!(i64::try_from(rows.len()).is_ok_and(|found| found == orders), "{orders} orders, {} complete", rows.len());
    Ok(rows.into_iter().map(|row| row.0).collect())
}

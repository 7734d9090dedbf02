//! What the row of the audit costs an order that ends: the same changes into a database in which such rows are thrown away.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use order_service::order::OrderRef;
use testing::{Client, Database, History, Topic};
use tokio::task::JoinSet;

use crate::{
    announced, client, cpu,
    figures::{Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

/// Of one change.
struct Cost {
    /// In microseconds.
    cpu: f64,
    wal: f64,
    /// Of the audit and its indexes, in bytes.
    kept: f64,
}

/// Its name, its unit, and where it stands in a cost.
type Quantity = (&'static str, &'static str, fn(&Cost) -> f64);

pub async fn measure(scale: &Scale) -> Result<Report> {
    let pairs =
        interleaved("changes", scale.pairs, async || one(scale, true).await, async || one(scale, false).await).await?;
    let all: [Quantity; 3] =
        [("Postgres CPU", "us", |cost| cost.cpu), ("WAL", "B", |cost| cost.wal), ("kept", "B", |cost| cost.kept)];
    let mut figures = Vec::new();
    for (name, unit, of) in all {
        figures.push(Figure::new(format!("a change, {name}"), unit, pairs.runs.iter().map(|(with, _)| of(with))));
        let row = pairs.runs.iter().map(|(with, without)| of(with) - of(without));
        figures.push(Figure::new(format!("its audit row, {name}"), unit, row));
    }
    Ok(Report {
        name: "changes",
        about: "orders completed over HTTP, their messages announced; with the row of the audit, less without it",
        figures,
        load: pairs.load,
    })
}

async fn one(scale: &Scale, is_audited: bool) -> Result<Cost> {
    let (database, topic) = (Database::new(&order_service::app::MIGRATIONS).await, Topic::new(PARTITIONS, &[]).await);
    if !is_audited {
        let none = "CREATE FUNCTION none() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER none BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION none()";
        database.execute(none).await;
    }
    let service = services::order_service(&database, &topic)?.start().await;
    let placed = client::place_for(scale.orders_for / 2, scale.connections, client::address(&service)?).await?.orders;
    announced::settled(&database).await;
    database.execute("CHECKPOINT").await;
    let wal = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    let (wal_before, before) = (database.number(wal).await, cpu::of_postgres(&database).await?);
    let orders = Arc::new(placed);
    let client = Client::new(service.api(), &History::default());
    let mut ending = JoinSet::new();
    for first in 0..scale.connections {
        let (client, orders, step) = (client.clone(), Arc::clone(&orders), scale.connections);
        ending.spawn(async move {
            for number in orders.iter().skip(first).step_by(step) {
                let order = OrderRef::from_number(*number).to_string();
                let answer = client.change(&order, "complete").await.context("a change")?;
                ensure!(answer.status == 200, "{order} was not completed: {}", answer.status);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = ending.join_next().await {
        ended.context("a client ended")??;
    }
    announced::settled(&database).await;
    let spent = cpu::of_postgres(&database).await? - before;
    let written = database.number(wal).await - wal_before;
    let kept = database.number("SELECT pg_total_relation_size('audit')").await;
    let (rows, each) = (database.number("SELECT count(*) FROM audit").await, orders.len() as f64);
    ensure!(rows == if is_audited { i64::try_from(orders.len())? } else { 0 }, "{rows} rows of the audit");
    services::stop(service).await?;
    topic.delete().await;
    let (cpu, wal, kept) = (spent.as_secs_f64() * 1e6 / each, written as f64 / each, kept as f64 / each);
    eprintln!("  {cpu:.0} us, {wal:.0} B of WAL, {kept:.0} B kept, {} changes", orders.len());
    Ok(Cost { cpu, wal, kept })
}

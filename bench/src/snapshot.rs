//! Orders placed as fast as they are taken, and then at a fixed rate, while somebody keeps a transaction open and
//! VACUUM can clean nothing, against the same without.

use anyhow::{Context, Result};
use sqlx::{Connection, Executor, PgConnection};
use testing::{Database, Topic};

use crate::{
    announced, client,
    figures::{Aim, Figure, Report},
    latency,
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

struct Placed {
    per_second: f64,
    /// In milliseconds, of orders to the topic.
    p99: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let (held, free) = (async || run(scale, true).await, async || run(scale, false).await);
    let pairs = interleaved("snapshot", scale.pairs, held, free).await?;
    let (held, free) = (|pair: &(Placed, Placed)| pair.0.per_second, |pair: &(Placed, Placed)| pair.1.per_second);
    let (held_p99, free_p99) = (|pair: &(Placed, Placed)| pair.0.p99, |pair: &(Placed, Placed)| pair.1.p99);
    let runs = &pairs.runs;
    Ok(Report {
        name: "snapshot",
        about: "orders for two minutes (or --held), then at 500/s, with a REPEATABLE READ transaction open since before",
        figures: vec![
            Figure::new("POST /orders, snapshot held", "orders/s", runs.iter().map(held)),
            Figure::new("POST /orders, without", "orders/s", runs.iter().map(free)),
            Figure::ratio("held to without", runs, held, free).aim(Aim::AtLeast(0.95)),
            Figure::new("p99 to the topic afterwards, snapshot held", "ms", runs.iter().map(held_p99)),
            Figure::new("p99 to the topic afterwards, without", "ms", runs.iter().map(free_p99)),
            Figure::ratio("p99, held to without", runs, held_p99, free_p99).aim(Aim::AtMost(1.2)),
        ],
        load: pairs.load,
    })
}

async fn run(scale: &Scale, held: bool) -> Result<Placed> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let service = services::order_service(&database, &topic)?.start().await;
    let mut reader = PgConnection::connect(&database.owner_url()).await.context("the reader")?;
    if held {
        // The first statement takes the snapshot.
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders").await?;
    }
    let placed = client::place_for(scale.held_for, scale.connections, client::address(&service)?).await?;
    announced::settled(&database).await;
    let [_, p99] = latency::of(&service, &topic, scale).await?.to_topic;
    reader.close().await.context("the reader")?;
    announced::settled(&database).await;
    services::stop(service).await?;
    announced::check(&database, &topic).await?;
    topic.delete().await;
    let per_second = placed.per_second();
    let how = if held { "snapshot held" } else { "without" };
    eprintln!("  {how}: {per_second:.0} orders/s, p99 to the topic {p99:.1} ms");
    Ok(Placed { per_second, p99 })
}

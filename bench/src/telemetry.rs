//! What it costs that the service tells of itself: CPU time of an order, its announcement included.

use std::time::Duration;

use anyhow::Result;
use testing::{Database, Service, Topic};

use crate::{
    announced, client,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

/// As often as nobody does it.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

pub async fn measure(scale: &Scale) -> Result<Report> {
    let pairs =
        interleaved("telemetry", scale.pairs, async || one(scale, true).await, async || one(scale, false).await)
            .await?;
    let (with, without) = (|pair: &(f64, f64)| pair.0, |pair: &(f64, f64)| pair.1);
    Ok(Report {
        name: "telemetry",
        about: "CPU time of order-service per order placed and announced, metrics scraped every second against none",
        figures: vec![
            Figure::new("with metrics", "us/order", pairs.runs.iter().map(with)),
            Figure::new("without", "us/order", pairs.runs.iter().map(without)),
            Figure::ratio("with to without", &pairs.runs, with, without).aim(Aim::AtMost(1.05)),
        ],
        load: pairs.load,
    })
}

/// Microseconds of CPU time per order.
async fn one(scale: &Scale, told: bool) -> Result<f64> {
    let (database, topic) = (Database::new(&order_service::app::MIGRATIONS).await, Topic::new(PARTITIONS, &[]).await);
    let service = services::order_service(&database, &topic)?.set("metrics.enabled", told).start().await;
    let address = client::address(&service)?;
    // Pools, statements and caches are made.
    client::place_for(Duration::from_millis(500), scale.connections, address).await?;
    announced::settled(&database).await;
    let before = service.cpu_time();
    let placing = client::place_for(scale.orders_for, scale.connections, address);
    let placed = tokio::select! {
        placed = placing => placed?,
        () = scraped(&service) => unreachable!("scrapes go on"),
    };
    announced::settled(&database).await;
    let spent = service.cpu_time() - before;
    announced::check(&database, &topic).await?;
    services::stop(service).await?;
    topic.delete().await;
    Ok(spent.as_secs_f64() * 1e6 / placed.orders.len() as f64)
}

async fn scraped(service: &Service) {
    loop {
        tokio::time::sleep(SCRAPE_EVERY).await;
        service.metrics().await;
    }
}

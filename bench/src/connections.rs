//! Orders over few connections and over many.

use anyhow::Result;
use testing::{Database, Topic};

use crate::{
    announced, client,
    figures::{Aim, Figure, Report},
    pairs::rounds,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

const CONNECTIONS: [usize; 5] = [8, 32, 128, 256, 512];

pub async fn measure(scale: &Scale) -> Result<Report> {
    let all =
        rounds("connections", scale.pairs, &CONNECTIONS, async |connections| run(scale, connections).await).await?;
    let mut figures: Vec<_> = CONNECTIONS
        .iter()
        .zip(&all.runs)
        .map(|(connections, runs)| {
            Figure::new(format!("over {connections} connections"), "orders/s", runs.iter().copied())
        })
        .collect();
    let many = all.runs.last().map(Vec::as_slice).unwrap_or_default();
    let to_peak = many.iter().enumerate().map(|(round, orders)| {
        let peak = all.runs.iter().map(|runs| runs[round]).fold(0.0, f64::max);
        orders / peak
    });
    figures.push(Figure::new("over 512 connections to the most", "", to_peak).aim(Aim::AtLeast(0.9)));
    Ok(Report {
        name: "connections",
        about: "POST /orders from clients that each send the next order when the last is answered, published meanwhile",
        figures,
        load: all.load,
    })
}

async fn run(scale: &Scale, connections: usize) -> Result<f64> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let service = services::order_service(&database, &topic)?.start().await;
    let placed = client::place_for(scale.orders_for, connections, client::address(&service)?).await?;
    announced::settled(&database).await;
    services::stop(service).await?;
    announced::check(&database, &topic).await?;
    topic.delete().await;
    eprintln!("  {connections} connections: {:.0} orders/s", placed.per_second());
    Ok(placed.per_second())
}

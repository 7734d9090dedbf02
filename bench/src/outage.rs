//! Kafka is away while orders come at full speed; the instance that took them is killed, three others start, and Kafka
//! comes back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use testing::{Database, Kafka, Topic};

use crate::{
    announced, backlog, client,
    figures::{Aim, Figure, Report},
    scale::Scale,
    services::{self, megabytes},
    topic::PARTITIONS,
};

const INSTANCES: usize = 3;
const WITHIN: Duration = Duration::from_secs(600);

/// Once: memory and rows are no matter of chance.
pub async fn measure(scale: &Scale) -> Result<Report> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let mut kafka = Kafka::start().await;
    let topic = Topic::unborn_at(kafka.brokers());
    topic.create(PARTITIONS, &[]).await;
    let setup = services::order_service(&database, &topic)?;
    let service = setup.start().await;
    kafka.stop().await;
    let (mut placed, begin) = (0, Instant::now());
    while placed < scale.large_backlog {
        let some = client::place_for(Duration::from_secs(5), scale.connections, client::address(&service)?).await?;
        placed += i64::try_from(some.orders.len())?;
        eprintln!("outage: {placed} orders of {}", scale.large_backlog);
    }
    let orders_per_second = placed as f64 / begin.elapsed().as_secs_f64();
    let mut most = service.memory().1;
    service.kill().await;
    let mut others = Vec::new();
    for _ in 0..INSTANCES {
        others.push(setup.start().await);
    }
    kafka.start_again().await;
    let back = Instant::now();
    backlog::settled(&database, WITHIN).await?;
    let sent_per_second = placed as f64 / back.elapsed().as_secs_f64();
    // Before the others end, whose logs are closed by whoever is left.
    let adopted = "SELECT coalesce(jsonb_agg(to_jsonb(one)), '[]') FROM instances AS one WHERE adopter IS NOT NULL";
    let logs: Value = sqlx::query_scalar(adopted).fetch_one(&database.pool).await?;
    let count = logs.as_array().map_or(0, Vec::len);
    ensure!(count == 1, "{count} rows of instances were adopted, instead of that of the one that was killed: {logs:#}");
    for other in others {
        most = most.max(other.memory().1);
        services::stop(other).await?;
    }
    let rows = database.number("SELECT count(*) FROM outbox").await;
    ensure!(rows == placed, "{placed} orders were answered 201, and the outbox has {rows} messages");
    announced::check(&database, &topic).await?;
    Ok(Report {
        name: "outage",
        about: "Kafka away at full speed, the instance killed, three started, Kafka back: each message once on the topic",
        figures: vec![
            Figure::new("orders while Kafka was away", "orders/s", [orders_per_second]),
            Figure::new("sent by three once it was back", "rows/s", [sent_per_second]),
            Figure::new("most memory of the four instances", "MB", [megabytes(most)]).aim(Aim::AtMost(64.0)),
        ],
        load: Vec::new(),
    })
}

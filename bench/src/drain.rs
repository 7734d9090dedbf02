//! A backlog published and marked by order-service, against a plain polling loop.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testing::{Database, Topic};
use time::OffsetDateTime;

use crate::{
    announced, backlog,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    polling_loop,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

const WITHIN: Duration = Duration::from_secs(120);

struct Drained {
    /// From when the service has its identity and begins to reload.
    per_second: f64,
    since_start_per_second: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let pairs =
        interleaved("drain", scale.pairs, async || by_service(scale).await, async || by_loop(scale).await).await?;
    let (service, polling) = (|pair: &(Drained, f64)| pair.0.per_second, |pair: &(Drained, f64)| pair.1);
    let whole = pairs.runs.iter().map(|pair| pair.0.since_start_per_second);
    Ok(Report {
        name: "drain",
        about: "rows of a backlog published and marked, from the moment the service has its identity to the last mark",
        figures: vec![
            Figure::new("order-service", "rows/s", pairs.runs.iter().map(service)),
            Figure::new("order-service, from the start of its process", "rows/s", whole),
            Figure::new("polling loop", "rows/s", pairs.runs.iter().map(polling)),
            Figure::ratio("order-service to polling loop", &pairs.runs, service, polling).aim(Aim::AtLeast(5.0)),
        ],
        load: pairs.load,
    })
}

async fn by_service(scale: &Scale) -> Result<Drained> {
    let (database, topic) = start(scale).await?;
    let setup = services::order_service(&database, &topic)?;
    let started = OffsetDateTime::now_utc();
    let service = setup.spawn();
    backlog::settled(&database, WITHIN).await?;
    let ended = OffsetDateTime::now_utc();
    services::stop(service).await?;
    // The database's clock is this machine's.
    let begin: OffsetDateTime = sqlx::query_scalar("SELECT min(started_at) FROM instances WHERE instance_id <> 1")
        .fetch_one(&database.pool)
        .await
        .context("when the service began")?;
    finish(&database, &topic, scale).await?;
    let rows = scale.backlog as f64;
    let drained = Drained {
        per_second: rows / (ended - begin).as_seconds_f64(),
        since_start_per_second: rows / (ended - started).as_seconds_f64(),
    };
    eprintln!("  order-service: {:.0} rows/s", drained.per_second);
    Ok(drained)
}

async fn by_loop(scale: &Scale) -> Result<f64> {
    let (database, topic) = (backlog::polled(scale.backlog).await?, Topic::new(PARTITIONS, &[]).await);
    let took = polling_loop::drain(&database, &topic).await?;
    announced::check_table(&database, &topic, "polled").await?;
    topic.delete().await;
    let per_second = scale.backlog as f64 / took.as_secs_f64();
    eprintln!("  polling loop: {per_second:.0} rows/s");
    Ok(per_second)
}

async fn start(scale: &Scale) -> Result<(Database, Topic)> {
    Ok((backlog::filled(scale.backlog).await?, Topic::new(PARTITIONS, &[]).await))
}

async fn finish(database: &Database, topic: &Topic, scale: &Scale) -> Result<()> {
    let rows = database.number("SELECT count(*) FROM outbox").await;
    ensure!(rows == scale.backlog, "the backlog has {rows} rows instead of {}", scale.backlog);
    announced::check(database, topic).await?;
    topic.delete().await;
    Ok(())
}

//! A backlog published and marked by order-service, against a plain polling loop.

use std::{process::id, time::Duration};

use anyhow::{Context, Result, ensure};
use testing::{Database, Topic};
use time::OffsetDateTime;

use crate::{
    announced, backlog, cpu,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    polling_loop,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

const WITHIN: Duration = Duration::from_secs(120);

pub struct Drained {
    /// From when the service has its identity and begins to reload.
    pub per_second: f64,
    pub since_start_per_second: f64,
    /// Of its process, from its start to the last mark.
    pub cpu: Duration,
    /// Of Postgres, meanwhile.
    pub postgres_cpu: Duration,
    pub memory_mb: f64,
}

/// By the polling loop, which is part of this process.
pub struct Polled {
    pub per_second: f64,
    pub cpu: Duration,
    pub postgres_cpu: Duration,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let pairs = interleaved(
        "drain",
        scale.pairs,
        async || by_service(scale.backlog).await,
        async || by_loop(scale.backlog).await,
    )
    .await?;
    let (service, polling) =
        (|pair: &(Drained, Polled)| pair.0.per_second, |pair: &(Drained, Polled)| pair.1.per_second);
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

pub async fn by_service(count: i64) -> Result<Drained> {
    let (database, topic) = start(count).await?;
    let setup = services::order_service(&database, &topic)?;
    let postgres = cpu::of_postgres(&database).await?;
    let started = OffsetDateTime::now_utc();
    let service = setup.spawn();
    backlog::settled(&database, WITHIN).await?;
    let ended = OffsetDateTime::now_utc();
    let (cpu, memory_mb) = (cpu::of_service(&service)?, services::megabytes(service.memory().1));
    let postgres_cpu = cpu::of_postgres(&database).await?.saturating_sub(postgres);
    services::stop(service).await?;
    // The database's clock is this machine's.
    let begin: OffsetDateTime = sqlx::query_scalar("SELECT min(started_at) FROM instances WHERE instance_id <> 1")
        .fetch_one(&database.pool)
        .await
        .context("when the service began")?;
    finish(&database, &topic, count).await?;
    let rows = count as f64;
    let drained = Drained {
        per_second: rows / (ended - begin).as_seconds_f64(),
        since_start_per_second: rows / (ended - started).as_seconds_f64(),
        cpu,
        postgres_cpu,
        memory_mb,
    };
    eprintln!("  order-service: {:.0} rows/s", drained.per_second);
    Ok(drained)
}

pub async fn by_loop(count: i64) -> Result<Polled> {
    let (database, topic) = (backlog::polled(count).await?, Topic::new(PARTITIONS, &[]).await);
    let (own, postgres) = (cpu::of_process(id())?, cpu::of_postgres(&database).await?);
    let took = polling_loop::drain(&database, &topic).await?;
    let spent = cpu::of_process(id())?.saturating_sub(own);
    let postgres_cpu = cpu::of_postgres(&database).await?.saturating_sub(postgres);
    announced::check_table(&database, &topic, "polled").await?;
    topic.delete().await;
    let per_second = count as f64 / took.as_secs_f64();
    eprintln!("  polling loop: {per_second:.0} rows/s");
    Ok(Polled { per_second, cpu: spent, postgres_cpu })
}

async fn start(count: i64) -> Result<(Database, Topic)> {
    Ok((backlog::filled(count).await?, Topic::new(PARTITIONS, &[]).await))
}

async fn finish(database: &Database, topic: &Topic, count: i64) -> Result<()> {
    let rows = database.number("SELECT count(*) FROM outbox").await;
    ensure!(rows == count, "the backlog has {rows} rows instead of {count}");
    announced::check(database, topic).await?;
    topic.delete().await;
    Ok(())
}

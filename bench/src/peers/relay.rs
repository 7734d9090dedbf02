//! A backlog drained by order-service, by a polling loop and by Debezium: rows a second, CPU time and memory.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::Consumer;
use testing::Topic;
use tokio::task::spawn_blocking;

use super::{
    debezium::{Debezium, Tuning},
    relayed,
};
use crate::{
    cpu, drain,
    figures::{Aim, Figure, Report},
    pairs::rounds,
    scale::Scale,
    topic::{self, PARTITIONS},
};

const WITHIN: Duration = Duration::from_secs(300);
/// As the goals have it.
const ROWS_OF_COST: f64 = 200_000.0;

#[derive(Clone, Copy)]
enum Relay {
    OrderService,
    PollingLoop,
    Debezium(Tuning),
}

struct Drained {
    per_second: f64,
    /// None of the loop, which has no process of its own.
    since_start_per_second: Option<f64>,
    memory_mb: Option<f64>,
    /// In seconds, of so many rows.
    cpu: f64,
    postgres_cpu: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let mut contenders = vec![Relay::OrderService, Relay::PollingLoop];
    contenders.extend(Tuning::ALL.map(Relay::Debezium));
    let count = scale.relayed;
    let all = rounds("relay", scale.rounds, &contenders, async |relay| match relay {
        Relay::OrderService => by_service(count).await,
        Relay::PollingLoop => by_loop(count).await,
        Relay::Debezium(tuning) => by_debezium(count, tuning).await,
    })
    .await?;
    let mut figures = Vec::new();
    for (relay, runs) in contenders.iter().zip(&all.runs) {
        let name = match relay {
            Relay::OrderService => "order-service".to_owned(),
            Relay::PollingLoop => "polling loop".to_owned(),
            Relay::Debezium(tuning) => tuning.to_string(),
        };
        figures.push(Figure::new(format!("{name}, drained"), "rows/s", runs.iter().map(|run| run.per_second)));
        let whole: Vec<_> = runs.iter().filter_map(|run| run.since_start_per_second).collect();
        if !whole.is_empty() {
            figures.push(Figure::new(format!("{name}, from the start of its process"), "rows/s", whole));
        }
        figures.push(Figure::new(format!("{name}, CPU of 200,000 rows"), "s", runs.iter().map(|run| run.cpu)));
        let postgres = runs.iter().map(|run| run.postgres_cpu);
        figures.push(Figure::new(format!("{name}, CPU of Postgres meanwhile"), "s", postgres));
        let memory: Vec<_> = runs.iter().filter_map(|run| run.memory_mb).collect();
        if !memory.is_empty() {
            figures.push(Figure::new(format!("{name}, most resident memory"), "MB", memory));
        }
    }
    let (own, tuned) = (&all.runs[0], &all.runs[3]);
    let memory = |run: &Drained| run.memory_mb.unwrap_or(f64::NAN);
    figures.push(Figure::quotient("rows/s to Debezium tuned", own, tuned, |run| run.per_second).aim(Aim::AtLeast(6.0)));
    figures.push(Figure::quotient("CPU a row to Debezium tuned", own, tuned, |run| run.cpu).aim(Aim::AtMost(0.25)));
    figures.push(Figure::quotient("memory to Debezium tuned", own, tuned, memory).aim(Aim::AtMost(1.0 / 15.0)));
    figures.push(Figure::quotient("rows/s to the polling loop", own, &all.runs[1], |run| run.per_second));
    Ok(Report {
        name: "relay",
        about: "a backlog drained: order-service from its identity to the last mark, the loop from its first batch to its last mark, Debezium, warm from half as many rows before, from the first message after those to the last",
        figures,
        load: all.load,
    })
}

fn of_cost(time: Duration, count: i64) -> f64 {
    time.as_secs_f64() * ROWS_OF_COST / count as f64
}

async fn by_service(count: i64) -> Result<Drained> {
    let drained = drain::by_service(count).await?;
    Ok(Drained {
        per_second: drained.per_second,
        since_start_per_second: Some(drained.since_start_per_second),
        memory_mb: Some(drained.memory_mb),
        cpu: of_cost(drained.cpu, count),
        postgres_cpu: of_cost(drained.postgres_cpu, count),
    })
}

async fn by_loop(count: i64) -> Result<Drained> {
    let polled = drain::by_loop(count).await?;
    Ok(Drained {
        per_second: polled.per_second,
        since_start_per_second: None,
        memory_mb: None,
        cpu: of_cost(polled.cpu, count),
        postgres_cpu: of_cost(polled.postgres_cpu, count),
    })
}

async fn by_debezium(count: i64, tuning: Tuning) -> Result<Drained> {
    // A JVM compiles what it runs, and drains slowly until it has: half as many rows come before those that are measured.
    let warm_up = count / 2;
    let database = relayed::filled(warm_up + count).await?;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let debezium = Debezium::of(&database, &topic, tuning)?;
    let postgres = cpu::of_postgres(&database).await?;
    let started = Instant::now();
    let process = debezium.spawn()?;
    let (watched, pid) = (topic.clone(), process.pid()?);
    let arrived = spawn_blocking(move || watch(&watched, warm_up, count, pid)).await.context("the watch has ended")?;
    let arrived = arrived.with_context(|| format!("the log of Debezium ends with\n{}", process.last_lines()))?;
    let postgres = cpu::of_postgres(&database).await?.saturating_sub(postgres);
    let memory_mb = process.memory_mb()?;
    process.kill().await?;
    relayed::check(&database, &topic).await?;
    relayed::forget(&database).await;
    topic.delete().await;
    let rows = (warm_up + count - arrived.at_first) as f64;
    let drained = Drained {
        per_second: rows / arrived.last.duration_since(arrived.first).as_secs_f64(),
        since_start_per_second: Some((warm_up + count) as f64 / arrived.last.duration_since(started).as_secs_f64()),
        memory_mb: Some(memory_mb),
        cpu: arrived.cpu.as_secs_f64() * ROWS_OF_COST / rows,
        postgres_cpu: of_cost(postgres, warm_up + count),
    };
    eprintln!("  {tuning}: {:.0} rows/s, {:.1} s of CPU, {memory_mb:.0} MB", drained.per_second, drained.cpu);
    Ok(drained)
}

struct Arrived {
    /// When the warm-up was over.
    first: Instant,
    /// How many were there then.
    at_first: i64,
    last: Instant,
    /// Of the process, from the first to the last.
    cpu: Duration,
}

#[expect(clippy::disallowed_methods, reason = "it has a thread of its own, for what it asks blocks")]
fn watch(topic: &Topic, warm_up: i64, count: i64, pid: u32) -> Result<Arrived> {
    let consumer = topic::consumer(topic, &[])?;
    let begun = Instant::now();
    let mut first = None;
    loop {
        let mut there = 0;
        for partition in 0..PARTITIONS {
            there += consumer.fetch_watermarks(&topic.name, partition, WITHIN).context("watermarks")?.1;
        }
        let now = Instant::now();
        if there >= warm_up && first.is_none() {
            first = Some((now, there, cpu::of_process(pid)?));
        }
        if let Some((first, at_first, cpu)) = first.filter(|_| there >= warm_up + count) {
            let cpu = cpu::of_process(pid)?.saturating_sub(cpu);
            return Ok(Arrived { first, at_first, last: now, cpu });
        }
        ensure!(now.duration_since(begun) < WITHIN, "{there} rows are on the topic within {WITHIN:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

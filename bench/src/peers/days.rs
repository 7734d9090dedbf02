//! Messages counted by type and day: by activity-service into Postgres, by Kafka Streams, exactly once as well, into a
//! topic.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rdkafka::Message;
use testing::Topic;
use tokio::task::spawn_blocking;

use super::process::Process;
use crate::{
    consume::{Messages, by_services},
    figures::{Aim, Figure, Report},
    pairs::rounds,
    scale::Scale,
    topic::{self, PARTITIONS},
};

const WITHIN: Duration = Duration::from_secs(180);
const NAMES: [&str; 3] = ["activity-service", "Kafka Streams as shipped", "Kafka Streams, a thread a core"];

struct Counted {
    per_second: f64,
    since_start_per_second: f64,
    memory_mb: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let messages = Messages::prepare("days", scale.counted).await?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let all = rounds("days", scale.rounds, &[None, Some(1), Some(threads)], async |threads| match threads {
        None => by_service(&messages).await,
        Some(threads) => by_streams(&messages, threads).await,
    })
    .await?;
    messages.delete().await;
    let mut figures = Vec::new();
    for (name, runs) in NAMES.iter().zip(&all.runs) {
        figures.push(Figure::new(format!("{name}, counted"), "msgs/s", runs.iter().map(|run| run.per_second)));
        let whole = runs.iter().map(|run| run.since_start_per_second);
        figures.push(Figure::new(format!("{name}, from the start of its process"), "msgs/s", whole));
        let memory = Figure::new(format!("{name}, most resident memory"), "MB", runs.iter().map(|run| run.memory_mb));
        figures.push(if *name == NAMES[0] { memory.aim(Aim::AtMost(64.0)) } else { memory });
    }
    let own = &all.runs[0];
    for (name, runs) in NAMES.iter().zip(&all.runs).skip(1) {
        let speed = Figure::quotient(format!("msgs/s to {name}"), own, runs, |run| run.per_second);
        figures.push(speed.aim(Aim::AtLeast(0.8)));
        let memory = Figure::quotient(format!("memory to {name}"), own, runs, |run| run.memory_mb);
        figures.push(memory.aim(Aim::AtMost(0.2)));
    }
    Ok(Report {
        name: "days",
        about: "messages counted by type and day: activity-service from its first transaction to its last, into Postgres, Kafka Streams from its first committed count to its last, into a topic",
        figures,
        load: all.load,
    })
}

async fn by_service(messages: &Messages) -> Result<Counted> {
    let counted = by_services(messages, 1).await?;
    Ok(Counted {
        per_second: counted.per_second,
        since_start_per_second: counted.since_start_per_second,
        memory_mb: counted.memory_mb,
    })
}

async fn by_streams(messages: &Messages, threads: usize) -> Result<Counted> {
    let home = tempfile::tempdir().context("a folder for Kafka Streams")?;
    let counts = Topic::new(PARTITIONS, &[]).await;
    let expected: BTreeMap<String, i64> =
        messages.by_day().into_iter().map(|((day, code), quantity)| (format!("{day}/{code}"), quantity)).collect();
    let arguments = [
        format!("application.id={}", counts.name),
        format!("state.dir={}", home.path().join("state").display()),
        format!("num.stream.threads={threads}"),
    ];
    let environment = [("BROKERS", counts.brokers.as_str()), ("TOPIC", &messages.topic.name), ("COUNTS", &counts.name)];
    let started = Instant::now();
    let mut process = Process::java(home.path(), "DayCounts", &arguments, &environment)?;
    let (topic, total) = (counts.clone(), expected.values().sum::<i64>());
    let done = spawn_blocking(move || watch(&topic, total)).await.context("the watch has ended")?;
    let done = done.with_context(|| format!("the log of Kafka Streams ends with\n{}", process.last_lines()))?;
    process.lives()?;
    let memory_mb = process.memory_mb()?;
    process.kill().await?;
    ensure!(done.counts == expected, "the counts are {:?} instead of {expected:?}", done.counts);
    counts.delete().await;
    let counted = Counted {
        per_second: (total - done.at_first) as f64 / done.last.duration_since(done.first).as_secs_f64(),
        since_start_per_second: total as f64 / done.last.duration_since(started).as_secs_f64(),
        memory_mb,
    };
    eprintln!("  Kafka Streams, {threads} threads: {:.0} messages/s, {memory_mb:.0} MB", counted.per_second);
    Ok(counted)
}

struct Done {
    /// When a count was committed first.
    first: Instant,
    at_first: i64,
    last: Instant,
    counts: BTreeMap<String, i64>,
}

/// Reads counts as they are committed until their sum is `total`.
fn watch(counts: &Topic, total: i64) -> Result<Done> {
    let settings =
        [("isolation.level", "read_committed"), ("fetch.wait.max.ms", "10"), ("fetch.queue.backoff.ms", "1")];
    let consumer = topic::consumer(counts, &settings)?;
    let begun = Instant::now();
    let (mut latest, mut sum, mut first) = (HashMap::<Vec<u8>, i64>::new(), 0, None);
    let mut last = begun;
    while sum < total {
        ensure!(begun.elapsed() < WITHIN, "{sum} of {total} are counted within {WITHIN:?}");
        let Some(message) = consumer.poll(Duration::from_millis(5)) else {
            // The first commit is over: nothing of it is left to be read.
            if sum > 0 && first.is_none() {
                first = Some((last, sum));
            }
            continue;
        };
        let (message, now) = (message?, Instant::now());
        let bytes: [u8; 8] =
            message.payload().and_then(|value| value.try_into().ok()).context("a count is no number")?;
        let count = i64::from_be_bytes(bytes);
        let before = latest.insert(message.key().unwrap_or_default().to_vec(), count);
        sum += count - before.unwrap_or_default();
        last = now;
    }
    let mut all = BTreeMap::new();
    for (key, count) in latest {
        all.insert(String::from_utf8(key).context("a key that is no text")?, count);
    }
    let (first, at_first) = first.context("everything was counted by one commit: too few messages")?;
    Ok(Done { first, at_first, last, counts: all })
}

//! Messages of thirty days that come once more, each known by its key, against the first time they came.

use std::time::{Duration, Instant};

use activity_service::app::MIGRATIONS;
use anyhow::{Result, ensure};
use testing::{Database, Topic, wait_until};
use tokio::time::sleep;

use crate::{
    announcements,
    figures::{Aim, Figure, Report},
    scale::Scale,
    services,
    topic::PARTITIONS,
};

const DAYS: u32 = 30;
const WITHIN: Duration = Duration::from_secs(300);
/// How often a key was looked for by itself, and all of them.
const LOOKUPS: &str = "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes
    WHERE relname ~ '^processed_messages_[0-9]'";

struct Read {
    first: f64,
    again: f64,
    lookups: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let topic = Topic::new(PARTITIONS, &[]).await;
    announcements::produce_over(DAYS, &topic, scale.messages).await?;
    let mut runs = Vec::new();
    for pair in 1..=scale.pairs {
        eprintln!("replay: pair {pair} of {}", scale.pairs);
        runs.push(run(scale, &topic).await?);
    }
    topic.delete().await;
    Ok(Report {
        name: "replay",
        about: "messages of 30 days, from the start of the process to the last: counted, and then read from the beginning again",
        figures: vec![
            Figure::new("the first time", "msgs/s", runs.iter().map(|run| run.first)),
            Figure::new("again", "msgs/s", runs.iter().map(|run| run.again)),
            Figure::ratio("again to the first time", &runs, |run| run.again, |run| run.first).aim(Aim::AtLeast(0.5)),
            Figure::new("index scans of keys, again", "1/msg", runs.iter().map(|run| run.lookups))
                .aim(Aim::AtMost(0.1)),
        ],
        load: Vec::new(),
    })
}

async fn run(scale: &Scale, topic: &Topic) -> Result<Read> {
    let database = Database::new(&MIGRATIONS).await;
    let first = read(scale, topic, &database).await?;
    let counted = "SELECT coalesce(sum(quantity), 0)::bigint FROM daily_activities";
    let count = database.number(counted).await;
    ensure!(usize::try_from(count)? == scale.messages, "{count} messages were counted");
    // A new group begins at the beginning; the positions say what comes again.
    database.execute("VACUUM (ANALYZE) processed_messages").await;
    database.execute("CHECKPOINT").await;
    let before = database.number(LOOKUPS).await;
    let again = read(scale, topic, &database).await?;
    ensure!(database.number(counted).await == count, "the figures changed when the messages came again");
    let lookups = (database.number(LOOKUPS).await - before) as f64 / scale.messages as f64;
    eprintln!("  first {first:.0} messages/s, again {again:.0}, {lookups:.3} index scans a message");
    Ok(Read { first, again, lookups })
}

/// Messages a second, by a group of its own.
async fn read(scale: &Scale, topic: &Topic, database: &Database) -> Result<f64> {
    let setup = services::activity_service(database, topic)?;
    let begin = Instant::now();
    let service = setup.start().await;
    wait_until("everything is read", WITHIN, async || {
        // Being asked costs it something.
        sleep(Duration::from_millis(80)).await;
        let told = service.metrics().await;
        let read = told.sum("activity_counted_messages_total") + told.sum("activity_duplicate_messages_total");
        read >= scale.messages as f64
    })
    .await;
    let took = begin.elapsed();
    services::stop(service).await?;
    Ok(scale.messages as f64 / took.as_secs_f64())
}

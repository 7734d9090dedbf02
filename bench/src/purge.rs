//! How long POST /orders takes while a great many messages are purged, against the same with the same
//! messages and no purge.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testing::Topic;

use crate::{
    announced, backlog, client,
    figures::{Aim, Figure, Report},
    latency::{WARM_UP, percentiles, send},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

struct Answered {
    /// In milliseconds: the median and the 99th percentile.
    to_answer: [f64; 2],
    purged_per_second: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let (with, without) = (async || run(scale, true).await, async || run(scale, false).await);
    let pairs = interleaved("purge", scale.pairs, with, without).await?;
    let mut figures = Vec::new();
    for (index, which) in [(0, "p50"), (1, "p99")] {
        let (with, without) = (
            |pair: &(Answered, Answered)| pair.0.to_answer[index],
            |pair: &(Answered, Answered)| pair.1.to_answer[index],
        );
        figures.push(Figure::new(format!("{which} to the answer, with purge"), "ms", pairs.runs.iter().map(with)));
        figures.push(Figure::new(format!("{which} to the answer, without"), "ms", pairs.runs.iter().map(without)));
        let ratio = Figure::ratio(format!("{which}, with purge to without"), &pairs.runs, with, without);
        figures.push(if index == 1 { ratio.aim(Aim::AtMost(1.5)) } else { ratio });
    }
    let purged = pairs.runs.iter().map(|pair| pair.0.purged_per_second);
    figures.push(Figure::new("purged meanwhile", "rows/s", purged));
    Ok(Report {
        name: "purge",
        about: "500 orders/s, from when each was due to its answer, while up to 1,000,000 old messages are purged",
        figures,
        load: pairs.load,
    })
}

async fn run(scale: &Scale, purge: bool) -> Result<Answered> {
    let database = backlog::published(scale.large_backlog).await?;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let setup = services::order_service(&database, &topic)?;
    // What is to be purged is ten days old.
    let setup = setup.set("partitions.every", "500ms");
    let service = setup.set("retention.published_messages", if purge { "7d" } else { "365d" }).start().await;

    let warm_up = scale.orders_per_second * u32::try_from(WARM_UP.as_secs())?;
    let count = scale.orders_per_second * u32::try_from((WARM_UP + scale.latency_for).as_secs())?;
    let old = "SELECT count(*) FROM outbox WHERE activity_at < now() - interval '9 days'";
    let before = database.number(old).await;
    let begin = Instant::now() + Duration::from_millis(200);
    let sent = send(client::address(&service)?, begin, Duration::from_secs(1) / scale.orders_per_second, count).await?;
    let (purged, seconds) = (before - database.number(old).await, begin.elapsed().as_secs_f64());
    ensure!(purge == (purged > 0), "{purged} messages were purged meanwhile");
    announced::settled(&database).await;
    services::stop(service).await?;
    // Those were never sent.
    database.execute("DELETE FROM outbox WHERE activity_at < now() - interval '9 days'").await;
    announced::check(&database, &topic).await?;
    topic.delete().await;

    let measured =
        sent.iter().filter(|one| one.due >= begin + Duration::from_secs(1) / scale.orders_per_second * warm_up);
    let to_answer = percentiles(measured.map(|one| one.answered.duration_since(one.due)).collect());
    let [p50, p99] = to_answer;
    eprintln!("  {}: p50 {p50:.1} ms, p99 {p99:.1} ms", if purge { "with purge" } else { "without" });
    Ok(Answered { to_answer, purged_per_second: purged as f64 / seconds })
}

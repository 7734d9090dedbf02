//! What librdkafka alone can write: its own `rdkafka_performance`, with the producer's settings of order-service.

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::Consumer;
use testing::Topic;
use tokio::{process::Command, task::spawn_blocking};

use super::folder;
use crate::{
    figures::{Figure, Report},
    pairs::rounds,
    scale::Scale,
    topic::{self, PARTITIONS},
};

/// Of a message of order-service. Its bytes are a pattern, and compress better than references do.
const BYTES: &str = "174";

pub async fn measure(scale: &Scale) -> Result<Report> {
    let all =
        rounds("producing", scale.rounds, &["none", "lz4"], async |codec| run(scale.counted, codec).await).await?;
    let [plain, compressed] = all.runs.as_slice() else { unreachable!("there are two") };
    Ok(Report {
        name: "producing",
        about: "messages of 174 bytes written by rdkafka_performance, acks=all and idempotent; it makes them up itself, so they are counted and have no ids",
        figures: vec![
            Figure::new("rdkafka_performance", "msgs/s", plain.iter().copied()),
            Figure::new("rdkafka_performance, lz4", "msgs/s", compressed.iter().copied()),
        ],
        load: all.load,
    })
}

async fn run(count: usize, codec: &str) -> Result<f64> {
    let topic = Topic::new(PARTITIONS, &[]).await;
    let output = Command::new(folder()?.join("rdkafka_performance"))
        .args(["-P", "-q", "-a", "-1", "-s", BYTES, "-b", &topic.brokers, "-t", &topic.name, "-z", codec])
        .args(["-X", "enable.idempotence=true", "-X", "queue.buffering.max.messages=1000000"])
        .args(["-c", &count.to_string()])
        .kill_on_drop(true)
        .output()
        .await
        .context("rdkafka_performance cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "rdkafka_performance: {text}{}", String::from_utf8_lossy(&output.stderr));
    let per_second =
        text.lines().rev().find_map(rate).with_context(|| format!("rdkafka_performance tells no rate: {text}"))?;
    let there = topic.clone();
    let counting = spawn_blocking(move || {
        let consumer = topic::consumer(&there, &[])?;
        let mut sum = 0;
        for partition in 0..PARTITIONS {
            sum += consumer.fetch_watermarks(&there.name, partition, std::time::Duration::from_secs(30))?.1;
        }
        anyhow::Ok(sum)
    });
    let there = counting.await.context("the count has ended")??;
    ensure!(usize::try_from(there).is_ok_and(|there| there == count), "{there} of {count} messages are on the topic");
    topic.delete().await;
    eprintln!("  rdkafka_performance, {codec}: {per_second:.0} messages/s");
    Ok(per_second)
}

/// Of its last line: `... messages delivered ... at offset ... in MS ms: N msgs/s and ...`.
fn rate(line: &str) -> Option<f64> {
    line.split_once(" msgs/s")?.0.rsplit(' ').next()?.parse().ok()
}

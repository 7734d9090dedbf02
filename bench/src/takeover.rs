//! How soon the log of a dead instance is sent, with a great many messages published and unpublished in the table,
//! against a few.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testing::{Topic, wait_until};

use crate::{
    announced, backlog,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

/// A take-over waits for it; what comes after does not depend on it.
const TAKEOVER_AFTER: &str = "1s";
/// Of the log that is taken over: what was acknowledged long ago is none of it.
const ACKNOWLEDGED: &str = "instance = 2 AND published_at > now() - interval '1 day'";

struct Taken {
    /// In milliseconds: from when the dead instance is seen to have ended to the first acknowledgement of its messages.
    to_first: f64,
    /// In milliseconds: from the start of the process to the same.
    since_start: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let large = async || run(scale.large_published, scale.large_backlog).await;
    let small = async || run(scale.small_backlog, scale.small_backlog).await;
    let pairs = interleaved("takeover", scale.pairs, large, small).await?;
    let (large, small) = (|pair: &(Taken, Taken)| pair.0.to_first, |pair: &(Taken, Taken)| pair.1.to_first);
    let (large_all, small_all) =
        (|pair: &(Taken, Taken)| pair.0.since_start, |pair: &(Taken, Taken)| pair.1.since_start);
    let runs = &pairs.runs;
    Ok(Report {
        name: "takeover",
        about: "an instance that starts beside a log whose instance is gone, until the first of its messages is on the topic; takeover_after 1s",
        figures: vec![
            Figure::new("from the end of the dead one, large tables", "ms", runs.iter().map(large)),
            Figure::new("from the end of the dead one, small tables", "ms", runs.iter().map(small)),
            Figure::ratio("large to small", runs, large, small).aim(Aim::AtMost(1.2)),
            Figure::new("from the start of the process, large tables", "ms", runs.iter().map(large_all)),
            Figure::new("from the start of the process, small tables", "ms", runs.iter().map(small_all)),
            Figure::ratio("from the start, large to small", runs, large_all, small_all),
        ],
        load: pairs.load,
    })
}

async fn run(published: i64, unpublished: i64) -> Result<Taken> {
    let database = backlog::beside_published(published, unpublished).await?;
    let topic = Topic::new(PARTITIONS, &[]).await;
    // With the default they would go before the log is taken over.
    let setup = services::order_service(&database, &topic)?
        .set("instance.takeover_after", TAKEOVER_AFTER)
        .set("retention.published_messages", "365d");
    let started: time::OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(&database.pool).await?;
    let service = setup.spawn();
    let first = format!("SELECT count(*) FROM published WHERE {ACKNOWLEDGED}");
    wait_until("its first message is on the topic", Duration::from_secs(120), async || {
        database.number(&first).await > 0
    })
    .await;
    let times: (f64, f64) = sqlx::query_as(&format!(
        "SELECT extract(epoch FROM min(published_at) - min(ended_at))::float8 * 1000,
            extract(epoch FROM min(published_at) - $1)::float8 * 1000
        FROM published, instances WHERE {ACKNOWLEDGED} AND instance_id = 2"
    ))
    .bind(started)
    .fetch_one(&database.pool)
    .await
    .context("when it was taken over")?;
    announced::settled(&database).await;
    services::stop(service).await?;
    let rows = database.number("SELECT count(*) FROM outbox").await;
    ensure!(rows == published + unpublished, "{rows} messages are left of {published} and {unpublished}");
    topic.delete().await;
    let (to_first, since_start) = times;
    eprintln!(
        "  {published} published, {unpublished} unpublished: {to_first:.0} ms from the end, {since_start:.0} ms from the start"
    );
    Ok(Taken { to_first, since_start })
}

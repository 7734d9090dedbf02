//! Orders placed as fast as they are taken while a day of old messages and a day of old keys go, against the same with
//! the same rows and nothing due.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result};
use testing::{Database, Topic, wait_until};

use crate::{
    announced, backlog, client,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

/// The bytes of the day that is to go: none where it is gone.
const OLD_MESSAGES: &str = "SELECT coalesce(pg_relation_size(to_regclass(
    'outbox_' || to_char((now() - interval '240 hours') AT TIME ZONE 'UTC', 'YYYYMMDD'))), 0)";
const OLD_KEYS: &str = "SELECT coalesce(pg_relation_size(to_regclass(
    'processed_messages_' || to_char((now() - interval '240 hours') AT TIME ZONE 'UTC', 'YYYYMMDD'))), 0)";

struct Placed {
    per_second: f64,
    /// From the first order until all was gone, in seconds.
    gone_after: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let (with, without) = (async || run(scale, true).await, async || run(scale, false).await);
    let pairs = interleaved("retention", scale.pairs, with, without).await?;
    let (with, without) = (|pair: &(Placed, Placed)| pair.0.per_second, |pair: &(Placed, Placed)| pair.1.per_second);
    let runs = &pairs.runs;
    Ok(Report {
        name: "retention",
        about: "orders placed, announced and counted for half a minute, and for as long as a day of messages and a day of keys take to go",
        figures: vec![
            Figure::new("POST /orders, beside retention", "orders/s", runs.iter().map(with)),
            Figure::new("POST /orders, without", "orders/s", runs.iter().map(without)),
            Figure::ratio("beside retention to without", runs, with, without).aim(Aim::AtLeast(0.95)),
            Figure::new("all gone after", "s", runs.iter().map(|pair| pair.0.gone_after)),
        ],
        load: pairs.load,
    })
}

/// How long orders are placed at least; for longer where not all is gone by then.
const LOAD_FOR: Duration = Duration::from_secs(30);
/// After this long it is looked whether that is so.
const ROUND: Duration = Duration::from_secs(10);

async fn run(scale: &Scale, due: bool) -> Result<Placed> {
    let orders = backlog::published(scale.large_backlog).await?;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let activity = keys(scale.large_backlog, &topic).await?;
    let kept = |days: &'static str| if due { days } else { "365d" };
    let ordering = services::order_service(&orders, &topic)?
        .set("partitions.every", "500ms")
        .set("retention.published_messages", kept("7d"))
        .start()
        .await;
    let counting = services::activity_service(&activity, &topic)?
        .set("retention.every", "500ms")
        .set("retention.processed_keys", kept("7d"))
        .start()
        .await;
    let begin = tokio::time::Instant::now();
    let is_gone = Cell::new(false);
    let load = async {
        let (address, mut orders, mut seconds) = (client::address(&ordering)?, 0, 0.0);
        while !is_gone.get() || seconds < LOAD_FOR.as_secs_f64() {
            let placed = client::place_for(ROUND, scale.connections, address).await?;
            orders += placed.orders.len();
            seconds += placed.seconds;
        }
        anyhow::Ok((orders, seconds))
    };
    let gone = async {
        wait_until("the old messages and keys are gone", Duration::from_secs(600), async || {
            !due || orders.number(OLD_MESSAGES).await + activity.number(OLD_KEYS).await == 0
        })
        .await;
        is_gone.set(true);
        begin.elapsed().as_secs_f64()
    };
    let (placed, gone_after) = tokio::join!(load, gone);
    let (placed, seconds) = placed?;
    let count = i64::try_from(placed)?;
    announced::settled(&orders).await;
    wait_until("everything is counted", Duration::from_secs(120), async || {
        activity.number("SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_positions").await >= count
    })
    .await;
    services::stop(ordering).await?;
    services::stop(counting).await?;
    topic.delete().await;
    let per_second = placed as f64 / seconds;
    let how = if due { "beside retention" } else { "without" };
    eprintln!("  {how}: {per_second:.0} orders/s, all gone after {gone_after:.1} s");
    Ok(Placed { per_second, gone_after })
}

/// A day of keys of ten days ago, of messages that the topic has no more.
async fn keys(count: i64, topic: &Topic) -> Result<Database> {
    let database = Database::new(&activity_service::app::MIGRATIONS).await;
    database.execute("SELECT make_key_partition(((now() - interval '240 hours') AT TIME ZONE 'UTC')::date)").await;
    sqlx::query(KEYS).bind(count).bind(&topic.name).execute(&database.pool).await.context("the keys")?;
    database.execute("VACUUM (ANALYZE) processed_messages").await;
    database.execute("CHECKPOINT").await;
    Ok(database)
}

/// UUIDv7 in order, spread over the day.
const KEYS: &str = "
    INSERT INTO processed_messages (message_ref, activity_at, processed_at, \"offset\", partition, activity_date, undated,
        activity_type_code, topic)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' || substr(md5(n::text), 1, 15))::uuid,
        at, at, -1, 0, (at AT TIME ZONE 'UTC')::date, false, 'ORDER_CREATED', $2
    FROM generate_series(1, $1::bigint) AS n,
        LATERAL (SELECT date_trunc('day', now(), 'UTC') - interval '240 hours' + interval '86399 s' * n / $1 AS at) AS moment";

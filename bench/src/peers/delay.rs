//! How long a message takes at 500 and 2,000 a second: by order-service from when its order is due, HTTP and all, by
//! Debezium from the commit of its row.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use order_service::order::OrderRef;
use sqlx::{Connection, PgConnection};
use testing::{Database, Topic};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{sync::Mutex, task::JoinSet};
use uuid::Uuid;

use super::{
    debezium::{Debezium, Tuning},
    relayed,
};
use crate::{
    announced,
    figures::{Aim, Figure, Report},
    latency::{self, percentiles},
    pairs::rounds,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

const RATES: [u32; 2] = [500, 2000];
/// Rows that are checked but not in the figures. Longer than that of order-service: a JVM compiles meanwhile.
const WARM_UP: Duration = Duration::from_secs(5);
/// A row that finds all of them busy waits, which does not count: only what comes after its commit does.
const CONNECTIONS: usize = 16;

pub struct Committed {
    pub order: i64,
    pub due: Instant,
    pub at: Instant,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let mut contenders = vec![None];
    contenders.extend(Tuning::ALL.map(Some));
    let (mut figures, mut load) = (Vec::new(), Vec::new());
    for rate in RATES {
        let scale = Scale { orders_per_second: rate, ..scale.clone() };
        let all = rounds(&format!("delay at {rate}/s"), scale.rounds, &contenders, async |tuning| match tuning {
            None => by_service(&scale).await,
            Some(tuning) => by_debezium(&scale, tuning).await,
        })
        .await?;
        for (index, which, goal) in [(0, "p50", 0.8), (1, "p99", 0.4)] {
            for (contender, runs) in contenders.iter().zip(&all.runs) {
                let name = contender.map_or_else(|| "order-service".to_owned(), |tuning| tuning.to_string());
                let values = runs.iter().map(|run: &[f64; 2]| run[index]);
                figures.push(Figure::new(format!("{name}, {which} at {rate}/s"), "ms", values));
            }
            let name = format!("{which} at {rate}/s to Debezium at its lowest latency");
            let ratio = Figure::quotient(name, &all.runs[0], &all.runs[3], |run| run[index]);
            figures.push(ratio.aim(Aim::AtMost(goal)));
        }
        load.extend(all.load);
    }
    Ok(Report {
        name: "delay",
        about: "until a consumer has the message: order-service from when the order is due, HTTP included, Debezium from the commit of its row",
        figures,
        load,
    })
}

async fn by_service(scale: &Scale) -> Result<[f64; 2]> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let service = services::order_service(&database, &topic)?.start().await;
    let [p50, p99] = latency::of(&service, &topic, scale).await?.to_topic;
    announced::settled(&database).await;
    services::stop(service).await?;
    announced::check(&database, &topic).await?;
    topic.delete().await;
    eprintln!("  order-service: p50 {p50:.1} ms, p99 {p99:.1} ms");
    Ok([p50, p99])
}

async fn by_debezium(scale: &Scale, tuning: Tuning) -> Result<[f64; 2]> {
    let database = relayed::empty().await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let debezium = Debezium::of(&database, &topic, tuning)?;
    let process = debezium.start(&database).await?;
    let warm_up = scale.orders_per_second * u32::try_from(WARM_UP.as_secs())?;
    let count = warm_up + scale.orders_per_second * u32::try_from(scale.latency_for.as_secs())?;
    let seen = latency::watch(&topic, count).await?;
    let begin = Instant::now() + Duration::from_millis(200);
    let every = Duration::from_secs(1) / scale.orders_per_second;
    let rows = insert(&database, begin, every, 0..count).await?;
    let seen = seen.await.context("the consumer has ended")?;
    let seen = seen.with_context(|| format!("the log of Debezium ends with\n{}", process.last_lines()))?;
    process.kill().await?;
    relayed::check(&database, &topic).await?;
    relayed::forget(&database).await;
    topic.delete().await;
    let mut times = Vec::new();
    for row in rows.iter().filter(|row| row.due >= begin + every * warm_up) {
        let seen = seen.get(&row.order).with_context(|| format!("row {} is not on the topic", row.order))?;
        // The consumer may have it before the commit is answered.
        times.push(seen.saturating_duration_since(row.at));
    }
    let last = rows.iter().map(|row| row.at).max().context("no rows")?;
    let behind = last.saturating_duration_since(begin + every * count);
    // A lower rate than it says would flatter.
    let held = scale.name == "quick" || behind < Duration::from_secs(1);
    ensure!(held, "the rows came {behind:?} later than they were due");
    let [p50, p99] = percentiles(times);
    eprintln!("  {tuning}: p50 {p50:.1} ms, p99 {p99:.1} ms");
    Ok([p50, p99])
}

/// Rows of the numbers, each committed by itself when it is due.
pub async fn insert(
    database: &Database,
    begin: Instant,
    every: Duration,
    numbers: std::ops::Range<u32>,
) -> Result<Vec<Committed>> {
    let rows = numbers.map(row).collect::<Result<Vec<_>>>()?;
    let waiting = Arc::new(Mutex::new(latency::due(rows, begin, every)));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = PgConnection::connect(&database.superuser_url()).await?;
        let waiting = Arc::clone(&waiting);
        clients.spawn(async move {
            let mut committed = Vec::new();
            loop {
                let next = waiting.lock().await.recv().await;
                let Some((Prepared { order, message_ref, order_ref, at, payload }, due)) = next else {
                    return anyhow::Ok(committed);
                };
                sqlx::query("INSERT INTO relayed VALUES ($1, $2, 'ORDER_CREATED', $3, $4)")
                    .bind(message_ref)
                    .bind(order_ref)
                    .bind(at)
                    .bind(payload)
                    .execute(&mut connection)
                    .await?;
                committed.push(Committed { order, due, at: Instant::now() });
            }
        });
    }
    let mut committed = Vec::new();
    while let Some(client) = clients.join_next().await {
        committed.append(&mut client.context("a client ended")??);
    }
    Ok(committed)
}

struct Prepared {
    order: i64,
    message_ref: Uuid,
    order_ref: String,
    at: OffsetDateTime,
    payload: String,
}

/// As order-service announces an order.
fn row(number: u32) -> Result<Prepared> {
    let order = i64::from(number) + 1;
    let (message_ref, order_ref) = (Uuid::now_v7(), OrderRef::from_number(order).to_string());
    // Of microseconds, as Postgres has them.
    let now = OffsetDateTime::now_utc();
    let at = now.replace_nanosecond(now.microsecond() * 1000).context("the clock")?;
    let moment = at.format(&Rfc3339).context("the clock")?;
    let payload = format!(
        r#"{{"messageRef":"{message_ref}","activityTypeCode":"ORDER_CREATED","activityAt":"{moment}","orderRef":"{order_ref}","orderVersion":1}}"#
    );
    Ok(Prepared { order, message_ref, order_ref, at, payload })
}

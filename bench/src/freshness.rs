//! How soon whoever looks sees what was placed: an order in a figure, and up to when the figures are complete. And what
//! it costs that the latter is told.

use std::time::{Duration, Instant};

use activity_service::app::MIGRATIONS;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use testing::{Client, Database, History, Service, Topic};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::sleep;

use crate::{
    announced, client, cpu,
    figures::{Aim, Figure, Report},
    latency::{self, WARM_UP, percentiles},
    pairs::interleaved,
    scale::Scale,
    services, topic,
};

/// The rate at which the cost is measured.
const MANY_A_SECOND: u32 = 2000;
/// Between two looks at the figures: much less than what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Between two questions for completeness, which moves about once a second.
const ASK_EVERY: Duration = Duration::from_millis(20);
const LAST_WITHIN: Duration = Duration::from_secs(60);

/// Both services as they are shipped.
struct Shop {
    orders: Database,
    activity: Database,
    topic: Topic,
    progress: Topic,
    ordering: Service,
    counting: Service,
    reader: Client,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let (to_figure, fresh) = (async || to_figure(scale).await, async || freshness(scale).await);
    let seen = interleaved("freshness", scale.pairs, to_figure, fresh).await?;
    let (told, untold) = (async || cost(scale, true).await, async || cost(scale, false).await);
    let costs = interleaved("freshness, what it costs", scale.pairs, told, untold).await?;
    let mut figures = Vec::new();
    for (index, which, to_figure, fresh) in [(0, "p50", 20.0, 1.5), (1, "p99", 100.0, 3.0)] {
        let seen = || seen.runs.iter();
        let name = format!("{which} from an order to its figure");
        figures.push(Figure::new(name, "ms", seen().map(|pair| pair.0[index])).aim(Aim::AtMost(to_figure)));
        let name = format!("{which} of now - completeTo");
        figures.push(Figure::new(name, "s", seen().map(|pair| pair.1[index])).aim(Aim::AtMost(fresh)));
    }
    let (told, untold) = (|pair: &(f64, f64)| pair.0, |pair: &(f64, f64)| pair.1);
    figures.push(Figure::new("CPU at 2,000 orders/s, completeness told", "us/order", costs.runs.iter().map(told)));
    figures.push(Figure::new("CPU at 2,000 orders/s, not told", "us/order", costs.runs.iter().map(untold)));
    figures.push(Figure::ratio("told to not told", &costs.runs, told, untold).aim(Aim::AtMost(1.01)));
    let mut load = seen.load;
    load.extend(costs.load);
    Ok(Report {
        name: "freshness",
        about: "500 orders/s, from when each was due until a reader of /activities has it counted, and what /completeness \
                tells meanwhile; CPU of both services and Postgres",
        figures,
        load,
    })
}

/// Milliseconds from when an order was due until a reader sees it. Figures have no names: the one that is `n` or more is
/// that of the `n`th order.
async fn to_figure(scale: &Scale) -> Result<[f64; 2]> {
    let shop = Shop::open().await?;
    let address = client::address(&shop.ordering)?;
    // Until the consumer has its partitions, which takes seconds.
    let (begin, every, first) = schedule(scale.orders_per_second, WARM_UP)?;
    latency::send(address, begin, every, first).await?;
    shop.look_until(i64::from(first)).await?;
    let (begin, every, count) = schedule(scale.orders_per_second, scale.latency_for)?;
    let sending = latency::send(address, begin, every, count);
    let (mut sent, seen) = tokio::try_join!(sending, shop.look_until(i64::from(first + count)))?;
    sent.sort_by_key(|one| one.due);
    let (mut seen, mut times) = (seen.into_iter().peekable(), Vec::new());
    for (one, number) in sent.iter().zip(i64::from(first) + 1..) {
        while seen.next_if(|(figure, _)| *figure < number).is_some() {}
        let (_, at) = seen.peek().context("an order is not in the figures")?;
        times.push(at.duration_since(one.due));
    }
    shop.close(first + count).await?;
    let [p50, p99] = percentiles(times);
    eprintln!("  to the figure: p50 {p50:.1} ms, p99 {p99:.1} ms");
    Ok([p50, p99])
}

/// Seconds between now and what is complete, as it is told all the while.
async fn freshness(scale: &Scale) -> Result<[f64; 2]> {
    let shop = Shop::open().await?;
    // It is told from the first full second on.
    let warm_up = WARM_UP * 3;
    let (begin, every, count) = schedule(scale.orders_per_second, warm_up + scale.latency_for)?;
    let asking = async {
        let mut told = Vec::new();
        sleep(begin.saturating_duration_since(Instant::now()) + warm_up).await;
        while begin.elapsed() < warm_up + scale.latency_for {
            let answer = shop.ask("/completeness").await?;
            let fresh = answer["freshnessSeconds"].as_f64().context("nothing is told to be complete")?;
            told.push(Duration::from_secs_f64(fresh));
            sleep(ASK_EVERY).await;
        }
        anyhow::Ok(told)
    };
    let sending = latency::send(client::address(&shop.ordering)?, begin, every, count);
    let (_, told) = tokio::try_join!(sending, asking)?;
    shop.close(count).await?;
    let [p50, p99] = percentiles(told).map(|milliseconds| milliseconds / 1000.0);
    eprintln!("  now - completeTo: p50 {p50:.2} s, p99 {p99:.2} s");
    Ok([p50, p99])
}

/// Microseconds of CPU time per order, of both services and Postgres. Where it is not told somebody has the lock of who
/// tells it: all that is left of it are two small statements a second.
async fn cost(scale: &Scale, is_told: bool) -> Result<f64> {
    let shop = Shop::open().await?;
    let mut silence = PgConnection::connect(&shop.orders.owner_url()).await.context("the lock")?;
    if !is_told {
        silence.execute("SELECT pg_advisory_lock('announced'::regclass::oid::bigint)").await?;
    }
    let address = client::address(&shop.ordering)?;
    let mut sent = 0;
    let mut spent = Duration::ZERO;
    // Pools, statements and caches are made by the first.
    for lasts in [WARM_UP, scale.orders_for] {
        let before = shop.cpu_time().await?;
        let (begin, every, count) = schedule(MANY_A_SECOND, lasts)?;
        latency::send(address, begin, every, count).await?;
        sent += count;
        shop.look_until(i64::from(sent)).await?;
        announced::settled(&shop.orders).await;
        spent = (shop.cpu_time().await? - before) / count;
    }
    silence.close().await.context("the lock")?;
    shop.close(sent).await?;
    let each = spent.as_secs_f64() * 1e6;
    eprintln!("  {}: {each:.1} us/order", if is_told { "told" } else { "not told" });
    Ok(each)
}

/// When the first of so many orders a second is due, and how many they are.
fn schedule(per_second: u32, lasts: Duration) -> Result<(Instant, Duration, u32)> {
    let count = per_second * u32::try_from(lasts.as_secs())?;
    Ok((Instant::now() + Duration::from_millis(200), Duration::from_secs(1) / per_second, count))
}

impl Shop {
    async fn open() -> Result<Self> {
        let (orders, activity) =
            (Database::new(&order_service::app::MIGRATIONS).await, Database::new(&MIGRATIONS).await);
        let topic = Topic::new(topic::PARTITIONS, &[]).await;
        let progress = Topic { name: format!("{}.progress", topic.name), ..topic.clone() };
        let told_on = |setup: testing::Setup| setup.set("kafka.progress_topic", &progress.name);
        let ordering = told_on(services::order_service(&orders, &topic)?).start().await;
        let counting = told_on(services::activity_service(&activity, &topic)?).start().await;
        let reader = Client::new(counting.api(), &History::default());
        Ok(Self { orders, activity, topic, progress, ordering, counting, reader })
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let answer = self.reader.get(path).await;
        ensure!(answer.status == 200, "{path} was answered {}", answer.status);
        Ok(answer.body)
    }

    /// What a reader sees from now on, until all orders are counted: each figure, and when it was first there.
    async fn look_until(&self, all: i64) -> Result<Vec<(i64, Instant)>> {
        let today = OffsetDateTime::now_utc().date();
        // Whatever midnight does.
        let path = format!("/activities?from={today}&to={}", today.next_day().context("the last day")?);
        let begin = Instant::now();
        let mut seen = Vec::new();
        loop {
            let days = self.ask(&path).await?;
            let figure: i64 = days.as_array().into_iter().flatten().filter_map(|one| one["quantity"].as_i64()).sum();
            if seen.last().is_none_or(|(last, _)| *last < figure) {
                seen.push((figure, Instant::now()));
            }
            if figure >= all {
                return Ok(seen);
            }
            ensure!(begin.elapsed() < LAST_WITHIN, "{figure} of {all} orders are counted");
            sleep(LOOK_EVERY).await;
        }
    }

    async fn cpu_time(&self) -> Result<Duration> {
        let postgres = cpu::of_postgres(&self.orders).await?;
        Ok(self.ordering.cpu_time() + self.counting.cpu_time() + postgres)
    }

    /// All of it was done: each order is announced once and counted once, and in the end everything is complete.
    async fn close(self, count: u32) -> Result<()> {
        announced::settled(&self.orders).await;
        let newest: OffsetDateTime =
            sqlx::query_scalar("SELECT max(activity_at) FROM outbox").fetch_one(&self.orders.pool).await?;
        testing::wait_until("everything is complete", LAST_WITHIN, async || {
            let told = self.ask("/completeness").await.unwrap_or_default();
            let to = told["completeTo"].as_str().and_then(|to| OffsetDateTime::parse(to, &Rfc3339).ok());
            to.is_some_and(|to| to >= newest)
        })
        .await;
        let counted = self.activity.number("SELECT count(*) FROM processed_messages").await;
        ensure!(counted == i64::from(count), "{counted} messages were counted, {count} orders placed");
        let figures = self.look_until(counted).await?;
        ensure!(
            figures.last().is_some_and(|(figure, _)| *figure == counted),
            "more is in the figures than was counted"
        );
        services::stop(self.counting).await?;
        services::stop(self.ordering).await?;
        announced::check(&self.orders, &self.topic).await?;
        self.topic.delete().await;
        self.progress.delete().await;
        Ok(())
    }
}

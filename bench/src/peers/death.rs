//! Kill -9 under load, and a new process at once: until a message that was stored after it is on the topic, and until all
//! that were stored before it are.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use order_service::order::OrderRef;
use rdkafka::Message;
use testing::{Database, Topic, wait_until};
use tokio::{
    sync::Mutex,
    task::{JoinSet, spawn_blocking},
    time::{sleep, sleep_until},
};

use super::{
    debezium::{Debezium, Tuning},
    delay, relayed,
};
use crate::{
    announced,
    client::{self, Connection},
    figures::{Aim, Figure, Report},
    latency,
    pairs::interleaved,
    scale::Scale,
    services, topic,
};

const EVERY: Duration = Duration::from_millis(2);
const BEFORE: Duration = Duration::from_secs(3);
/// More orders than are due before the kill.
const UNTIL_KILLED: u32 = 10_000;
/// An order that finds all of them busy waits.
const CONNECTIONS: usize = 64;
/// Longer than a JVM takes to come back.
const AFTER: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(60);

struct Death {
    /// In milliseconds from the kill.
    to_first: f64,
    to_all: f64,
    again: usize,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let pairs = interleaved("death", scale.rounds, of_service, of_debezium).await?;
    let (own, other): (Vec<_>, Vec<_>) = pairs.runs.iter().map(|(own, other)| (own, other)).unzip();
    let mut figures = Vec::new();
    for (name, runs) in [("order-service", &own), ("Debezium tuned", &other)] {
        let first = runs.iter().map(|run| run.to_first);
        figures.push(Figure::new(format!("{name}, from kill -9 to the first new message"), "ms", first));
        let all = runs.iter().map(|run| run.to_all);
        figures.push(Figure::new(format!("{name}, to the last of those stored before"), "ms", all));
        let again = runs.iter().map(|run| run.again as f64);
        figures.push(Figure::new(format!("{name}, messages sent once more"), "messages", again));
    }
    figures.push(
        Figure::quotient("kill -9 to the first new message, to Debezium", &own, &other, |run| run.to_first)
            .aim(Aim::AtMost(0.1)),
    );
    Ok(Report {
        name: "death",
        about: "500/s, kill -9, a new process at once; orders come again as soon as it is ready, Debezium's rows without a break; everything is on the topic at least once",
        figures,
        load: pairs.load,
    })
}

async fn of_service() -> Result<Death> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(topic::PARTITIONS, &[]).await;
    let setup = services::order_service(&database, &topic)?;
    let service = setup.start().await;
    let watch = Watch::of(&topic).await?;
    let begin = Instant::now();
    let address = client::address(&service)?;
    let load = tokio::spawn(place_until_killed(address, begin));
    sleep_until((begin + BEFORE).into()).await;
    let killed = Instant::now();
    service.kill().await;
    let mut service = setup.spawn();
    // It is not ready yet.
    let before: HashSet<i64> = orders(&database).await?.into_iter().collect();
    service.ready().await;
    let count = u32::try_from(Duration::from_secs(1).as_millis() / EVERY.as_millis())?;
    let after = latency::send(client::address(&service)?, Instant::now(), EVERY, count).await?;
    let answered_before = load.await.context("the load has ended")??;
    announced::settled(&database).await;
    services::stop(service).await?;
    let seen = watch.end().await?;
    let all: HashSet<i64> = orders(&database).await?.into_iter().collect();
    let answered = after.iter().map(|sent| &sent.order).chain(&answered_before);
    let lost = answered.filter(|order| !all.contains(order)).count();
    ensure!(lost == 0, "{lost} orders were answered 201 and are not there");
    let missing = all.iter().filter(|order| !seen.contains_key(order)).count();
    ensure!(missing == 0, "{missing} orders are not announced");
    topic.delete().await;
    death("order-service", killed, &seen, |order| before.contains(&order))
}

/// Places orders when they are due, until the service is gone; returns those that it had answered.
async fn place_until_killed(address: SocketAddr, begin: Instant) -> Result<Vec<i64>> {
    let requests = (0..UNTIL_KILLED).map(|number| client::request(number, &[])).collect();
    let waiting = Arc::new(Mutex::new(latency::due(requests, begin, EVERY)));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(address).await?;
        let waiting = Arc::clone(&waiting);
        clients.spawn(async move {
            let mut answered = Vec::new();
            loop {
                let next = waiting.lock().await.recv().await;
                let Some((request, _)) = next else { return answered };
                // Its connections end with it.
                let Ok(order) = connection.place(&request).await else { return answered };
                answered.push(order);
            }
        });
    }
    let mut answered = Vec::new();
    while let Some(client) = clients.join_next().await {
        answered.append(&mut client.context("a client ended")?);
    }
    Ok(answered)
}

async fn orders(database: &Database) -> Result<Vec<i64>> {
    sqlx::query_scalar("SELECT order_id FROM outbox").fetch_all(&database.pool).await.context("the orders")
}

async fn of_debezium() -> Result<Death> {
    let database = relayed::empty().await;
    let topic = Topic::new(topic::PARTITIONS, &[]).await;
    let debezium = Debezium::of(&database, &topic, Tuning::Tuned)?;
    let process = debezium.start(&database).await?;
    let watch = Watch::of(&topic).await?;
    let begin = Instant::now();
    let killing = async {
        sleep_until((begin + BEFORE).into()).await;
        let killed = Instant::now();
        process.kill().await?;
        anyhow::Ok((killed, debezium.spawn()?))
    };
    let count = u32::try_from((BEFORE + AFTER).as_millis() / EVERY.as_millis())?;
    let (rows, again) = tokio::join!(delay::insert(&database, begin, EVERY, 0..count), killing);
    let (rows, (killed, mut process)) = (rows?, again?);
    wait_until("every row is on the topic", WITHIN, async || watch.count() >= rows.len()).await;
    // What it sends once more comes with the rest.
    sleep(Duration::from_secs(1)).await;
    process.lives()?;
    process.kill().await?;
    let seen = watch.end().await?;
    let again = relayed::check_at_least_once(&database, &topic).await?;
    relayed::forget(&database).await;
    topic.delete().await;
    let after: HashSet<i64> = rows.iter().filter(|row| row.at > killed).map(|row| row.order).collect();
    let death = death("Debezium", killed, &seen, |order| !after.contains(&order))?;
    ensure!(death.again == again, "{} messages were seen once more, {again} are there", death.again);
    Ok(death)
}

fn death(name: &str, killed: Instant, seen: &HashMap<i64, Seen>, before: impl Fn(i64) -> bool) -> Result<Death> {
    let (old, new): (Vec<_>, Vec<_>) = seen.iter().partition(|(order, _)| before(**order));
    let milliseconds = |at: Instant| at.saturating_duration_since(killed).as_secs_f64() * 1000.0;
    let first = new.iter().map(|(_, seen)| seen.at).min().context("nothing came after the kill")?;
    let last = old.iter().map(|(_, seen)| seen.at).max().context("nothing came before the kill")?;
    let again = seen.values().map(|seen| seen.times - 1).sum();
    let death = Death { to_first: milliseconds(first), to_all: milliseconds(last), again };
    eprintln!("  {name}: first {:.0} ms, all {:.0} ms, {again} once more", death.to_first, death.to_all);
    Ok(death)
}

/// Of a message: when it came first, and how often it did.
struct Seen {
    at: Instant,
    times: usize,
}

/// Reads the topic until it is told to end.
struct Watch {
    ended: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    reading: JoinHandle<Result<HashMap<i64, Seen>>>,
}

impl Watch {
    async fn of(topic: &Topic) -> Result<Self> {
        let settings = [("fetch.wait.max.ms", "10"), ("fetch.queue.backoff.ms", "1")];
        let topic = topic.clone();
        let consumer = spawn_blocking(move || topic::consumer_from_now(&topic, &settings));
        let consumer = consumer.await.context("the consumer has ended")??;
        let ended = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (end, distinct) = (Arc::clone(&ended), Arc::clone(&count));
        let reading = thread::spawn(move || -> Result<HashMap<i64, Seen>> {
            let mut seen = HashMap::new();
            loop {
                let Some(message) = consumer.poll(Duration::from_millis(200)) else {
                    if end.load(Relaxed) {
                        return Ok(seen);
                    }
                    continue;
                };
                let (message, now) = (message?, Instant::now());
                let key = std::str::from_utf8(message.key().unwrap_or_default())?;
                let order = OrderRef::parse(key).with_context(|| format!("a message with the key {key}"))?;
                seen.entry(order.number()).or_insert_with(|| Seen { at: now, times: 0 }).times += 1;
                distinct.store(seen.len(), Relaxed);
            }
        });
        Ok(Self { ended, count, reading })
    }

    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    async fn end(self) -> Result<HashMap<i64, Seen>> {
        self.ended.store(true, Relaxed);
        let joined = spawn_blocking(|| self.reading.join()).await.context("the consumer has ended")?;
        joined.map_err(|_| anyhow!("the consumer has ended"))?
    }
}

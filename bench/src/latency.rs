//! From when an order is due until a consumer sees its message on the topic, at a fixed rate that no
//! slowness slows down.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use order_service::order::OrderRef;
use rdkafka::Message;
use testing::{Database, Service, Topic};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
};

use crate::{
    announced,
    client::{self, Connection, request},
    figures::{Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services, topic,
};

/// Orders that are checked but not in the figures: connections, plans and the producer are new.
pub const WARM_UP: Duration = Duration::from_secs(1);
/// An order that finds all of them busy waits, and the wait counts.
const CONNECTIONS: usize = 64;
const LAST_WITHIN: Duration = Duration::from_secs(30);

pub struct Sent {
    pub order: i64,
    pub due: Instant,
    pub answered: Instant,
}

/// In milliseconds.
pub struct Latency {
    pub to_topic: [f64; 2],
    to_answer: [f64; 2],
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let (as_shipped, lingering) = (async || run(scale, None).await, async || run(scale, Some("5ms")).await);
    let pairs = interleaved("latency", scale.pairs, as_shipped, lingering).await?;
    let mut figures = Vec::new();
    for (index, which) in [(0, "p50"), (1, "p99")] {
        let of = |read: fn(&(Latency, Latency)) -> &[f64; 2]| pairs.runs.iter().map(move |pair| read(pair)[index]);
        figures.push(Figure::new(format!("{which} to the topic"), "ms", of(|p| &p.0.to_topic)));
        figures.push(Figure::new(format!("{which} to the topic, publisher.linger 5ms"), "ms", of(|p| &p.1.to_topic)));
        figures.push(Figure::new(format!("{which} to the answer"), "ms", of(|p| &p.0.to_answer)));
    }
    Ok(Report {
        name: "latency",
        about: "500 orders/s, from when each was due until a consumer has its message; tuned Debezium had p50 3.5 ms",
        figures,
        load: pairs.load,
    })
}

async fn run(scale: &Scale, linger: Option<&str>) -> Result<Latency> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(topic::PARTITIONS, &[]).await;
    let setup = services::order_service(&database, &topic)?;
    let setup = linger.into_iter().fold(setup, |setup, linger| setup.set("publisher.linger", linger));
    let service = setup.start().await;

    let latency = of(&service, &topic, scale).await?;
    announced::settled(&database).await;
    services::stop(service).await?;
    announced::check(&database, &topic).await?;
    topic.delete().await;
    let [p50, p99] = latency.to_topic;
    eprintln!("  publisher.linger {}: p50 {p50:.1} ms, p99 {p99:.1} ms", linger.unwrap_or("as shipped"));
    Ok(latency)
}

/// Of orders placed at the fixed rate with a service that runs, and has announced everything before.
pub async fn of(service: &Service, topic: &Topic, scale: &Scale) -> Result<Latency> {
    let warm_up = scale.orders_per_second * u32::try_from(WARM_UP.as_secs())?;
    let count = scale.orders_per_second * u32::try_from((WARM_UP + scale.latency_for).as_secs())?;
    let seen = watch(topic, count).await?;
    let begin = Instant::now() + Duration::from_millis(200);
    let every = Duration::from_secs(1) / scale.orders_per_second;
    let sent = send(client::address(service)?, begin, every, count).await?;
    let seen = seen.await.context("the consumer has ended")??;
    ensure!(seen.len() == sent.len(), "{} orders were placed, {} announced", sent.len(), seen.len());
    let (mut to_topic, mut to_answer) = (Vec::new(), Vec::new());
    for Sent { order, due, answered } in sent {
        let seen = seen.get(&order).with_context(|| format!("order {order} was not announced"))?;
        if due >= begin + every * warm_up {
            to_topic.push(seen.duration_since(due));
            to_answer.push(answered.duration_since(due));
        }
    }
    Ok(Latency { to_topic: percentiles(to_topic), to_answer: percentiles(to_answer) })
}

/// When the message of each order that is placed from now on was first seen; ends when `count` orders were.
pub async fn watch(topic: &Topic, count: u32) -> Result<oneshot::Receiver<Result<HashMap<i64, Instant>>>> {
    let (tell, told) = oneshot::channel();
    // The broker answers as soon as there is a message; an empty answer costs a round trip.
    let settings = [("fetch.wait.max.ms", "10"), ("fetch.queue.backoff.ms", "1")];
    let topic = topic.clone();
    let from_now = spawn_blocking(move || topic::consumer_from_now(&topic, &settings));
    let consumer = from_now.await.context("the consumer has ended")??;
    let watching = move || {
        let mut seen = HashMap::new();
        while seen.len() < count as usize {
            let message = consumer.poll(LAST_WITHIN).context("orders are not announced")??;
            let now = Instant::now();
            let key = std::str::from_utf8(message.key().unwrap_or_default())?;
            let order = OrderRef::parse(key).with_context(|| format!("a message with the key {key}"))?;
            seen.entry(order.number()).or_insert(now);
        }
        Ok(seen)
    };
    // The receiver is gone where the run has failed already.
    thread::spawn(move || drop(tell.send(watching())));
    Ok(told)
}

/// Sends orders when they are due, answered or not.
pub async fn send(address: SocketAddr, begin: Instant, every: Duration, count: u32) -> Result<Vec<Sent>> {
    let requests = (0..count).map(|number| request(number, &[])).collect();
    let waiting = Arc::new(Mutex::new(due(requests, begin, every)));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(address).await?;
        let waiting = Arc::clone(&waiting);
        clients.spawn(async move {
            let mut sent = Vec::new();
            loop {
                let next = waiting.lock().await.recv().await;
                let Some((request, due)) = next else { return anyhow::Ok(sent) };
                let order = connection.place(&request).await?;
                sent.push(Sent { order, due, answered: Instant::now() });
            }
        });
    }
    let mut sent = Vec::new();
    while let Some(client) = clients.join_next().await {
        sent.append(&mut client.context("a client ended")??);
    }
    Ok(sent)
}

/// Each when it is due, with that moment.
pub fn due<T: Send + 'static>(all: Vec<T>, begin: Instant, every: Duration) -> mpsc::UnboundedReceiver<(T, Instant)> {
    let (line, waiting) = mpsc::unbounded_channel();
    // A thread, since the runtime's timer rounds up to a millisecond.
    thread::spawn(move || {
        for (one, number) in all.into_iter().zip(0..) {
            let due = begin + every * number;
            while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                thread::park_timeout(left);
            }
            if line.send((one, due)).is_err() {
                return;
            }
        }
    });
    waiting
}

/// The median and the 99th percentile.
pub fn percentiles(mut times: Vec<Duration>) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|percent| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    })
}

//! How much is still to be counted is told of each partition for itself: what is not known is not told as 0, and
//! what cannot be read yet is no lag.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use testing::{Kafka, Received, Service, Topic, wait_until};
use tokio::time::{Instant, sleep};

use crate::world::{World, created, many, seconds};

const LAG: &str = "activity_consumer_lag_messages";

fn of_partition(partition: i32, count: usize) -> Vec<Received> {
    many(count).into_iter().map(|message| Received { partition, ..message }).collect()
}

pub async fn lag_is(service: &Service, expected: f64) {
    wait_until("the lag is told", seconds(30), async || {
        let metrics = service.metrics().await;
        metrics.has(LAG) && metrics.sum(LAG) == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_cannot_be_asked_is_told_and_stops_no_other() {
    let kafka = Kafka::start().await;
    let mut second = kafka.second().await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create_on(&[&[1], &[2], &[1]], &[]).await;
    let setup = world.setup().set("metrics.lag_every", "500ms");
    let service = setup.start().await;
    for partition in 0..3 {
        world.produce(&of_partition(partition, 20)).await;
    }
    world.at_rest().await;
    lag_is(&service, 0.0).await;

    second.stop().await;
    wait_until("the lag is not told", seconds(30), async || !service.metrics().await.has(LAG)).await;
    assert_eq!(service.metrics().await.sum("activity_unknown_lag_partitions"), 1.0);
    let why = service.health().await["components"]["lag"]["lastError"].to_string();
    assert!(why.contains("partition 1 of") && why.contains("no leader"), "{why}");
    assert_eq!(service.stop().await, Some(0));

    // One that begins now knows where to begin with the others.
    let service = setup.start().await;
    world.produce(&of_partition(0, 30)).await;
    world.produce(&of_partition(2, 30)).await;
    world.has_counted(120, seconds(20)).await;
    wait_until("it is told", seconds(20), async || {
        service.metrics().await.sum("activity_unknown_lag_partitions") == 1.0
    })
    .await;
    assert!(!service.metrics().await.has(LAG));

    second.start_again().await;
    world.produce(&of_partition(1, 10)).await;
    world.has_counted(130, seconds(30)).await;
    lag_is(&service, 0.0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// A producer that writes in transactions.
pub fn transactional(topic: &Topic) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &topic.brokers).set("transactional.id", &topic.name);
    let producer: BaseProducer = config.set("transaction.timeout.ms", "600000").create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer
}

/// Sends messages in a transaction that is left open.
pub fn send_open(producer: &BaseProducer, topic: &Topic, messages: &[Received]) {
    producer.begin_transaction().unwrap();
    for message in messages {
        let record = BaseRecord::<[u8], [u8]>::to(&topic.name).partition(0);
        let record = record.key(message.key.as_deref().unwrap()).payload(message.value.as_deref().unwrap());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_marker_of_a_transaction_is_no_lag() {
    let world = World::new(1).await;
    let service = world.setup().set("metrics.lag_every", "500ms").start().await;
    let topic = world.topic().clone();
    tokio::task::spawn_blocking(move || {
        let producer = transactional(&topic);
        for _ in 0..3 {
            send_open(&producer, &topic, &many(5));
            producer.commit_transaction(Duration::from_secs(30)).unwrap();
        }
    })
    .await
    .unwrap();
    world.has_counted(15, seconds(20)).await;
    lag_is(&service, 0.0).await;
    assert_eq!(service.metrics().await.sum("activity_unread_seconds"), 0.0);
    world.produce(&[created()]).await;
    world.has_counted(16, seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_figures().await;
}

/// While another partition has a backlog the client is never seen to be through with any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_is_it_while_there_is_much_to_read_elsewhere() {
    let world = World::new(2).await;
    let setup = world.setup().set("metrics.lag_every", "500ms").set("consumer.batch_max_messages", 20);
    let service = setup.failpoint("consumer::counted", "sleep(250)").start().await;
    let topic = world.topic().clone();
    let sent = tokio::task::spawn_blocking(move || {
        let producer = transactional(&topic);
        send_open(&producer, &topic, &many(5));
        producer.commit_transaction(Duration::from_secs(30)).unwrap();
    });
    sent.await.unwrap();
    world.has_counted(5, seconds(20)).await;
    world.produce(&of_partition(1, 6000)).await;
    // Longer than a partition may stand before it is named.
    let until = Instant::now() + seconds(25);
    while Instant::now() < until {
        let told = service.health().await["components"]["lag"].to_string();
        assert!(!told.contains("partition 0 of"), "{told}");
        sleep(seconds(1)).await;
    }
    assert!(service.metrics().await.sum(LAG) > 100.0, "there is still much to read");
    let unread = service.metrics().await.sum("activity_unread_seconds");
    assert!(unread < 5.0, "{unread}");
    assert_eq!(service.stop().await, Some(0));
    // The group's offset comes to the end with the next message only.
    world.produce(&of_partition(0, 1)).await;
    world.run_to_rest().await;
    world.judge_figures().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_behind_an_open_transaction_are_told_apart_from_lag() {
    let world = World::new(1).await;
    let service = world.setup().set("metrics.lag_every", "500ms").start().await;
    world.produce(&many(10)).await;
    world.has_counted(10, seconds(20)).await;
    let topic = world.topic().clone();
    let producer = tokio::task::spawn_blocking(move || {
        let producer = transactional(&topic);
        send_open(&producer, &topic, &many(3));
        producer
    });
    let producer = producer.await.unwrap();
    world.produce(&many(200)).await;

    wait_until("it is told", seconds(60), async || {
        service.metrics().await.sum("activity_behind_open_transaction_messages") == 203.0
    })
    .await;
    lag_is(&service, 0.0).await;
    let told = |line: &Value| line["message"] == "messages wait behind an open transaction of another producer";
    let lines: Vec<_> = service.log().into_iter().filter(told).collect();
    assert_eq!(lines.len(), 1, "once");
    assert_eq!(lines[0]["offsets"], 203);
    assert_eq!(world.counted().await, 10);

    tokio::task::spawn_blocking(move || producer.abort_transaction(Duration::from_secs(30)).unwrap()).await.unwrap();
    world.has_counted(210, seconds(20)).await;
    wait_until("it is over", seconds(20), async || {
        service.metrics().await.sum("activity_behind_open_transaction_messages") == 0.0
    })
    .await;
    lag_is(&service, 0.0).await;
    world.produce(&[created()]).await;
    world.has_counted(211, seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_figures().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_is_told_by_name_while_another_one_is_read() {
    let mut world = World::new(1).await;
    world.topics.push(Topic::new(1, &[]).await);
    let service = world.setup().set("metrics.lag_every", "500ms").start().await;
    for topic in &world.topics {
        topic.produce(&many(10)).await;
    }
    world.has_counted(20, seconds(20)).await;
    world.at_rest().await;
    wait_until("all is well", seconds(20), async || {
        service.health().await["components"]["topics"]["state"] == "working"
    })
    .await;

    let gone = world.topics.pop().unwrap();
    gone.delete().await;
    wait_until("it is told", seconds(10), async || service.has_logged("the topic is gone")).await;
    for _ in 0..20 {
        world.produce(&[created()]).await;
    }
    world.has_counted(40, seconds(20)).await;
    let health = service.health().await;
    let of = |component: &str| {
        (health["components"][component]["state"].clone(), health["components"][component]["lastError"].to_string())
    };
    let (state, why) = of("topics");
    assert!(state == "waiting" && why.contains(&gone.name), "{why}");
    assert_eq!(of("consumer").0, "waiting", "messages of another topic are no success of this one");
    assert_eq!(service.metrics().await.sum("kafka_topics_missing"), 1.0);
    assert_eq!(service.probe("ready").await, Some(200));

    gone.create(1, &[]).await;
    gone.produce(&many(5)).await;
    world.has_counted(45, seconds(40)).await;
    wait_until("all is well", seconds(20), async || {
        let health = service.health().await;
        service.metrics().await.sum("kafka_topics_missing") == 0.0
            && health["components"]["topics"]["state"] == "working"
    })
    .await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_figures().await;
}

use std::time::Duration;

use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use serde_json::{Value, json};
use testing::{Kafka, wait_until};

use crate::world::{World, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_or_crashes_under_load_costs_no_message_and_counts_against_none() {
    let mut kafka = Kafka::start().await;
    let world = World::with_kafka(&kafka).await;
    // The first rejection would fail a message.
    let service = world.setup().set("publisher.max_failures", 1).start().await;
    let client = world.client(&service);
    client
        .load_during(8, async {
            client.load(200, 4).await;
            kafka.stop().await;
            client.load(500, 4).await;
            kafka.start_again().await;
            client.load(500, 4).await;
            kafka.crash().await;
            client.load(500, 4).await;
            kafka.start_again().await;
            client.load(200, 4).await;
        })
        .await;
    assert_eq!(world.history.others(), [].into(), "every order is accepted");
    world.at_rest(seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_thousand_orders_placed_without_a_broker_are_all_announced_once_it_is_there() {
    let mut kafka = Kafka::absent().await;
    let world = World::with_kafka(&kafka).await;
    let service = world.setup().set("publisher.queue_capacity", 1000).start().await;
    let client = world.client(&service);

    client.load(10_000, 64).await;
    let (early, _) = service.memory();
    client.load(40_000, 64).await;
    let (late, most) = service.memory();
    let megabytes = [early, late, most].map(|bytes| bytes >> 20);
    assert!(late < early + (8 << 20) && most < 64 << 20, "{megabytes:?} MB after 10,000 orders, 50,000, and at most");
    assert_eq!(world.history.acknowledged().len(), 50_000, "{:?}", world.history.others());
    assert_eq!(world.count("published").await, 0);
    assert_eq!(service.probe("ready").await, Some(200));

    kafka.start_again().await;
    world.at_rest(seconds(90)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_topic_that_is_missing_and_may_not_be_made_is_waited_for() {
    let world = World::new().await;
    // More replicas than there are brokers: the broker refuses to create the topic.
    let service = world.setup().set("kafka.replication", 2).set("publisher.max_failures", 1).start().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    wait_until("the publisher says what it waits for", seconds(20), async || {
        service.health().await["components"]["publisher"]["state"] == json!("waiting")
    })
    .await;
    world.topic.create(3, &[]).await;
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_topic_deleted_while_it_runs_counts_against_no_message() {
    let world = World::new().await;
    let setup = world.setup().set("kafka.partitions", 2).set("publisher.max_failures", 1);
    // A topic that is not there is waited for inside librdkafka first, for 30 s.
    let service = setup.set("kafka.properties.topic.metadata.propagation.max.ms", 500).start().await;
    wait_until("the topic is made", seconds(10), async || service.has_logged("created the topic")).await;
    world.topic.delete().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    wait_until("the publisher waits", seconds(20), async || {
        service.health().await["components"]["publisher"]["state"] == json!("waiting")
    })
    .await;
    assert_eq!(world.count("unpublished").await, 50);
    world.topic.create(3, &[]).await;
    world.at_rest(seconds(30)).await;
    world.judge().await;
}

/// Holds: No outage counts against a message.
#[tokio::test]
async fn a_broker_that_refuses_the_service_counts_against_no_message() {
    let cluster = MockCluster::new(1).unwrap();
    let world = World::with_brokers(cluster.bootstrap_servers()).await;
    cluster.create_topic(&world.topic.name, 1, 1).unwrap();
    let service = world.setup().set("publisher.max_failures", 1).start().await;
    // Often enough to meet a message that is alone, too.
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 8]);
    world.client(&service).load(20, 1).await;
    world.at_rest(seconds(30)).await;
    world.judge().await;
    assert!(service.has_logged("kafka takes nothing"));
}

/// The broker has lost count of the producer's requests: nothing that this producer sends is taken any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_fails_for_good_is_replaced_and_everything_is_announced() {
    let cluster = MockCluster::new(1).unwrap();
    let world = World::with_brokers(cluster.bootstrap_servers()).await;
    cluster.create_topic(&world.topic.name, 1, 1).unwrap();
    // Batches, so that most requests are alone on their way.
    let service = world.setup().set("publisher.max_failures", 1).set("publisher.linger", "20ms").start().await;
    let client = world.client(&service);
    let out_of_order = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
    let replaced = || service.log().iter().filter(|line| line["message"].as_str() == Some(REPLACED)).count();
    client
        .load_during(8, async {
            // With another request before it the producer takes the same answer for one it may try again.
            wait_until("three producers are replaced", seconds(60), async || {
                cluster.request_errors(RDKafkaApiKey::Produce, &out_of_order);
                tokio::time::sleep(Duration::from_millis(300)).await;
                replaced() >= 3
            })
            .await;
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    // What was in flight, and nothing else, may come twice.
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

const REPLACED: &str = "the producer failed for good; making a new one";

/// librdkafka reports a request that was refused for the moment as delivered, without an offset, when
/// the broker took the one behind it: right with a broker that counts the producer's requests, but
/// a partition that has just been made has nothing to count from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_said_to_be_delivered_without_an_offset_is_sent_again() {
    let cluster = MockCluster::new(1).unwrap();
    let world = World::with_brokers(cluster.bootstrap_servers()).await;
    cluster.create_topic(&world.topic.name, 1, 1).unwrap();
    let service = world.setup().set("publisher.linger", "1ms").start().await;
    let client = world.client(&service);
    client.place_one().await;
    world.at_rest(seconds(10)).await;

    // The first of several requests under way is refused; the mock takes those behind it.
    cluster.broker_round_trip_time(1, Duration::from_millis(400)).unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART]);
    client.load(20, 1).await;
    world.at_rest(seconds(20)).await;
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timestamp_that_the_broker_refuses_is_an_outage_and_no_fault_of_a_message() {
    let world = World::new().await;
    // As if the clock of this host were late.
    world.topic.create(2, &[("message.timestamp.before.max.ms", "0")]).await;
    let service = world.setup().set("publisher.max_failures", 1).start().await;
    world.client(&service).load(20, 4).await;
    wait_until("it is told", seconds(20), async || service.metrics().await.sum("outbox_outage") > 0.0).await;
    // One that came within the millisecond is taken.
    assert_eq!(world.count("failed").await, 0);
    assert!(world.count("unpublished").await > 10);
    let told = |line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with("kafka takes nothing"));
    let line = service.log().into_iter().find(told).expect("a line");
    assert!(line["error"].as_str().unwrap().contains("timestamp"), "{line}");
    assert!(line["advice"].as_str().is_some_and(|advice| advice.contains("clock")), "{line}");
    world.topic.set("message.timestamp.before.max.ms", "9223372036854775807").await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn the_reason_why_kafka_cannot_be_reached_is_told() {
    let kafka = Kafka::with_certificates().await;
    let world = World::with_kafka(&kafka).await;
    let with = |name, trusted| kafka.with_certificate(world.setup(), name, trusted);
    for (setup, reason) in [
        (world.setup().set("kafka.properties.security.protocol", "SSL"), "ssl handshake failed"),
        (with("EXPIRED", "EXPIRED"), "certificate is expired, of another host"),
        (with("OTHER", "OTHER"), "certificate is expired, of another host"),
        (with("GOOD", "OTHER"), "certificate verify failed"),
    ] {
        let service = setup.spawn();
        let told = |line: &Value| {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_lowercase();
            text("message").starts_with("no broker in reach") && (text("reason") + &text("error")).contains(reason)
        };
        wait_until(reason, seconds(20), async || service.log().iter().any(told)).await;
    }
    let service = with("GOOD", "GOOD").start().await;
    world.client(&service).load(20, 4).await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

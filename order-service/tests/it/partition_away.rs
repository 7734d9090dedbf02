//! Kafka takes messages of some partitions and not of others, or of none, and says nothing.

use testing::{Kafka, wait_until};

use crate::world::{World, seconds};

/// How many messages of the healthy partitions took how long from placed to marked, in seconds: 99 of 100.
const LATE: &str = "SELECT coalesce((percentile_disc(0.99) WITHIN GROUP (ORDER BY
        extract(epoch FROM published_at - activity_at)) * 1000)::bigint, 0)
    FROM outbox_messages WHERE state = 'published' AND partition <> 1";

/// Holds: No partition that takes nothing is in the way of others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_leader_stops_no_other_and_is_told() {
    let kafka = Kafka::start().await;
    let mut second = kafka.second().await;
    let world = World::with_kafka(&kafka).await;
    world.topic.create_on(&[&[1], &[2], &[1], &[1]], &[]).await;
    // Its share of these is soon used up.
    let setup = world.setup().set("publisher.queue_capacity", 400).set("publisher.max_in_flight", 200);
    let service = setup.set("publisher.max_failures", 1).start().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    world.at_rest(seconds(20)).await;

    second.stop().await;
    client.load(4000, 8).await;
    let of_others = "SELECT count(*) FROM outbox_messages WHERE partition <> 1";
    wait_until("the others are sent", seconds(20), async || {
        let left = 4050 - world.database.number(of_others).await;
        left == world.count("unpublished").await
            + world.database.number("SELECT count(*) FROM outbox_messages WHERE partition = 1").await
            && left < 2000
    })
    .await;
    let waiting = world.count("unpublished").await;
    assert!(waiting > 400, "more wait than memory has room for: {waiting}");
    let late = world.database.number(LATE).await;
    assert!(late < 1000, "99 of 100 messages of the other partitions took up to {late} ms");
    println!("99 of 100 messages of the other partitions took up to {late} ms; {waiting} wait");

    wait_until("it is told", seconds(20), async || service.metrics().await.sum("outbox_outage") > 0.0).await;
    let metrics = service.metrics().await;
    assert_eq!(metrics.sum("outbox_partitions_without_leader"), 1.0);
    assert_eq!(metrics.sum("outbox_standing_partitions"), 1.0);
    let told = || service.log().iter().filter(|l| l["message"].as_str() == Some("partitions take nothing")).count();
    wait_until("a line tells", seconds(5), async || told() > 0).await;
    client.load(200, 4).await;
    assert_eq!(told(), 1, "once");

    second.start_again().await;
    world.at_rest(seconds(30)).await;
    wait_until("all is well", seconds(20), async || {
        let metrics = service.metrics().await;
        metrics.sum("outbox_outage") == 0.0 && metrics.sum("outbox_partitions_without_leader") == 0.0
    })
    .await;
    assert_eq!(service.stop().await, Some(0));
    // While the second broker is there.
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_below_its_least_replicas_in_sync_is_an_outage() {
    let kafka = Kafka::start().await;
    let mut second = kafka.second().await;
    let world = World::with_kafka(&kafka).await;
    world.topic.create_on(&[&[1, 2], &[1, 2]], &[("min.insync.replicas", "2")]).await;
    let service = world.setup().set("publisher.max_failures", 1).start().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    world.at_rest(seconds(20)).await;

    second.stop().await;
    client.load(200, 4).await;
    wait_until("it is told", seconds(20), async || service.metrics().await.sum("outbox_outage") > 0.0).await;
    wait_until("a line tells", seconds(5), async || service.has_logged("partitions take nothing")).await;
    assert_eq!(service.health().await["components"]["publisher"]["state"], "waiting");

    second.start_again().await;
    world.at_rest(seconds(30)).await;
    wait_until("all is well", seconds(20), async || service.metrics().await.sum("outbox_outage") == 0.0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

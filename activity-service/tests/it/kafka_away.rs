use testing::{Kafka, wait_until};

use crate::world::{World, created, figures, many, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_or_crashes_under_load_costs_no_message_and_counts_none_twice() {
    let mut kafka = Kafka::start().await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create(3, &[]).await;
    let service = world.setup().set("metrics.lag_every", "1s").start().await;
    let recount = world.recount();
    let breaking = async {
        world.has_counted(500, seconds(20)).await;
        kafka.stop().await;
        assert_eq!(service.probe("ready").await, Some(200), "figures are told without Kafka");
        assert_ne!(figures(&service, "/activities/2026-11-20").await, []);
        wait_until("it says what it waits for", seconds(10), async || {
            service.health().await["components"]["consumer"]["state"] == "waiting"
        })
        .await;
        kafka.start_again().await;
        world.has_counted(world.counted().await + 500, seconds(30)).await;
        kafka.crash().await;
        let asked = ["consumer_lag_messages", "unknown_lag_partitions", "unread_seconds"];
        wait_until("it tells nothing that it does not know", seconds(30), async || {
            let metrics = service.metrics().await;
            !asked.iter().any(|name| metrics.has(&format!("activity_{name}")))
        })
        .await;
        kafka.start_again().await;
        world.has_counted(world.counted().await + 500, seconds(30)).await;
    };
    // Without a broker the producer waits, in the same sequence: it writes nothing twice.
    let (written, ()) = world.topic().produce_during(created, recount.while_the_figures_agree(breaking)).await;
    world.at_rest().await;
    assert!(world.counted().await >= i64::try_from(written).unwrap());
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_at_start_it_is_ready_and_counts_as_soon_as_there_is_one() {
    let mut kafka = Kafka::absent().await;
    let world = World::with_kafka(&kafka).await;
    let service = world.setup().start().await;
    assert_eq!(figures(&service, "/activities/today").await, []);
    wait_until("it says what it waits for", seconds(10), async || {
        service.health().await["components"]["consumer"]["state"] == "waiting"
    })
    .await;
    kafka.start_again().await;
    world.topic().create(2, &[]).await;
    world.produce(&many(200)).await;
    world.has_counted(200, seconds(20)).await;
    world.at_rest().await;
    wait_until("it says that it works", seconds(20), async || {
        service.health().await["components"]["consumer"]["state"] == "working"
    })
    .await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_topic_that_is_missing_is_waited_for_and_read_from_its_beginning() {
    let world = World::without_topic().await;
    let service = world.setup().start().await;
    wait_until("it says what it waits for", seconds(20), async || {
        service.health().await["components"]["consumer"]["state"] == "waiting"
    })
    .await;
    world.topic().create(2, &[]).await;
    world.produce(&many(100)).await;
    world.has_counted(100, seconds(15)).await;
    assert_eq!(service.stop().await, Some(0));
    world.run_to_rest().await;
    world.judge().await;
}

#[tokio::test]
async fn partitions_added_later_are_read_within_15_s_and_from_their_beginning() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    world.produce(&many(10)).await;
    world.at_rest().await;
    world.topic().grow_to(4).await;
    let spread: Vec<_> = many(400).into_iter().zip((1..4).cycle()).map(|(one, at)| one.in_partition(at)).collect();
    // Not before every broker and client knows the partitions.
    wait_until("they are there", seconds(10), async || world.topic().ends().await.len() == 4).await;
    world.produce(&spread).await;
    world.has_counted(410, seconds(15)).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn the_reason_why_kafka_cannot_be_reached_is_told() {
    let kafka = Kafka::with_certificates().await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create(1, &[]).await;
    world.produce(&many(10)).await;
    let with = |name, trusted| kafka.with_certificate(world.setup(), name, trusted);
    for (setup, reason) in [
        (world.setup().set("kafka.properties.security.protocol", "SSL"), "SSL handshake failed"),
        (with("EXPIRED", "EXPIRED"), "certificate is expired, of another host"),
        (with("OTHER", "OTHER"), "certificate is expired, of another host"),
        (with("GOOD", "OTHER"), "certificate verify failed"),
    ] {
        let service = setup.start().await;
        wait_until(reason, seconds(20), async || {
            let consumer = &service.health().await["components"]["consumer"];
            consumer["state"] == "waiting" && consumer["lastError"].as_str().is_some_and(|why| why.contains(reason))
        })
        .await;
    }
    let service = with("GOOD", "GOOD").start().await;
    world.has_counted(10, seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

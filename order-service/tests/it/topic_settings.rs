//! The topic's settings can break what the service promises: that is told.

use serde_json::{Value, json};
use testing::{Kafka, Service, wait_until};

use crate::world::{World, seconds};

fn problem(service: &Service, problem: &str) -> Option<Value> {
    let told = |line: &Value| line["message"] == "a topic is set wrong" && line["problem"] == problem;
    service.log().into_iter().find(told)
}

#[tokio::test]
async fn a_topic_that_is_made_here_needs_the_replicas_that_the_settings_say() {
    let kafka = Kafka::start().await;
    let _second = kafka.second().await;
    let world = World::with_kafka(&kafka).await;
    let setup = world.setup().set("kafka.partitions", 2).set("kafka.replication", 2);
    let service = setup.set("kafka.min_insync_replicas", 2).start().await;
    wait_until("the topic is made", seconds(20), async || service.has_logged("created the topic")).await;
    assert_eq!(world.topic.get("min.insync.replicas").await, "2");
    world.client(&service).load(20, 4).await;
    world.at_rest(seconds(20)).await;
    wait_until("its settings are right", seconds(20), async || {
        service.health().await["components"]["topics"]["state"] == json!("working")
    })
    .await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn settings_that_break_a_promise_are_told_with_what_to_do_and_measured() {
    let kafka = Kafka::start().await;
    let _second = kafka.second().await;
    let world = World::with_kafka(&kafka).await;
    let settings = [("retention.ms", "60000"), ("message.timestamp.before.max.ms", "60000")];
    world.topic.create_on(&[&[1], &[1]], &settings).await;
    let service = world.setup().set("kafka.replication", 2).start().await;
    for one in ["short retention", "few replicas", "not replicated", "timestamps refused"] {
        wait_until("it is told", seconds(20), async || problem(&service, one).is_some()).await;
        let line = problem(&service, one).unwrap();
        assert_eq!(line["level"], "WARN");
        assert!(line["advice"].as_str().is_some_and(|advice| advice.len() > 40), "{line}");
        let metrics = service.metrics().await;
        assert_eq!(metrics.sum_of("kafka_topic_problems", "problem", one), 1.0, "{one}");
    }
    assert_eq!(service.metrics().await.sum("kafka_topic_problems"), 4.0);
    assert_eq!(service.health().await["components"]["topics"]["state"], "waiting");
    assert_eq!(service.probe("ready").await, Some(200));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_topic_with_fewer_in_sync_than_configured_is_told() {
    let kafka = Kafka::start().await;
    let _second = kafka.second().await;
    let world = World::with_kafka(&kafka).await;
    world.topic.create_on(&[&[1, 2]], &[("min.insync.replicas", "1")]).await;
    let setup = world.setup().set("kafka.replication", 2).set("kafka.min_insync_replicas", 2);
    let service = setup.start().await;
    wait_until("it is told", seconds(20), async || problem(&service, "few in sync").is_some()).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_compacted_topic_is_refused_unless_it_is_allowed() {
    let world = World::new().await;
    world.topic.create(2, &[("cleanup.policy", "compact")]).await;
    let refused = world.setup().run(&["serve"]).await;
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8(refused.stderr).unwrap();
    let line = told.lines().find(|line| line.contains("is compacted")).expect("a line");
    assert!(line.contains(&world.topic.name) && line.contains("kafka.allow_compacted"), "{line}");

    let service = world.setup().set("kafka.allow_compacted", true).start().await;
    wait_until("it is told", seconds(20), async || problem(&service, "compacted").is_some()).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn the_topic_of_a_running_service_that_somebody_deletes_is_told_at_once_and_not_made_again() {
    let world = World::new().await;
    let service = world.setup().set("kafka.partitions", 2).start().await;
    wait_until("the topic is made", seconds(10), async || service.has_logged("created the topic")).await;
    // It was seen.
    wait_until("its settings are looked at", seconds(20), async || {
        service.health().await["components"]["topics"]["state"] == json!("working")
    })
    .await;
    world.topic.delete().await;
    wait_until("its end is told", seconds(10), async || service.has_logged("the topic is gone")).await;
    assert_eq!(service.metrics().await.sum("kafka_topics_missing"), 1.0);
    world.topic.create(2, &[]).await;
    wait_until("it is there", seconds(10), async || service.metrics().await.sum("kafka_topics_missing") == 0.0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

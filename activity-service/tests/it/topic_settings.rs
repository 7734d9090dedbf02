//! A topic's settings can lose messages before they are counted.

use serde_json::Value;
use testing::{Topic, wait_until};

use crate::world::{World, many, seconds};

#[tokio::test]
async fn a_compacted_topic_is_refused_unless_it_is_allowed() {
    let mut world = World::without_topic().await;
    world.topics = vec![Topic::new(2, &[("cleanup.policy", "compact")]).await, Topic::new(1, &[]).await];
    let refused = world.setup().run(&["serve"]).await;
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8(refused.stderr).unwrap();
    let line = told.lines().find(|line| line.contains("is compacted")).expect("a line");
    assert!(line.contains(&world.topics[0].name) && line.contains("kafka.allow_compacted"), "{line}");

    let service = world.setup().set("kafka.allow_compacted", true).start().await;
    let told = |line: &Value| line["message"] == "a topic is set wrong" && line["problem"] == "compacted";
    wait_until("it is told", seconds(20), async || service.log().iter().any(told)).await;
    assert_eq!(service.metrics().await.sum_of("kafka_topic_problems", "problem", "compacted"), 1.0);
    world.topics[1].produce(&many(20)).await;
    world.has_counted(20, seconds(20)).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_retention_shorter_than_the_longest_outage_is_told() {
    let mut world = World::without_topic().await;
    world.topics = vec![Topic::new(1, &[("retention.ms", "3600000")]).await];
    let service = world.setup().start().await;
    let told = |line: &Value| line["message"] == "a topic is set wrong" && line["problem"] == "short retention";
    wait_until("it is told", seconds(20), async || service.log().iter().any(told)).await;
    assert_eq!(service.health().await["components"]["topics"]["state"], "waiting");
    assert_eq!(service.stop().await, Some(0));

    let service = world.setup().set("kafka.longest_outage", "30m").start().await;
    wait_until("all is well", seconds(20), async || {
        service.health().await["components"]["topics"]["state"] == "working"
    })
    .await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

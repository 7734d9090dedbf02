//! A topic may permit messages that are larger than the memory there is.

use serde_json::json;
use testing::Topic;

use crate::{
    operator::Operator,
    world::{World, created, many, seconds},
};

/// The memory that the deployment permits.
const LIMIT: u64 = 256 * 1024 * 1024;
const MEGABYTES_50: usize = 50 * 1_000_000;

#[tokio::test]
async fn messages_of_50_megabytes_are_counted_or_kept_by_their_hash_in_the_memory_there_is() {
    let mut world = World::new(1).await;
    let largest = Topic::unborn();
    largest.create(1, &[("max.message.bytes", "52428800")]).await;
    world.topics = vec![largest];
    let padded = created().with_field("note", "x".repeat(MEGABYTES_50));
    let unreadable = created().with_value(vec![b'x'; MEGABYTES_50]);
    for message in [padded, unreadable.clone(), created(), unreadable, created()] {
        world.produce(&[message]).await;
    }
    let service = world.setup().start().await;
    world.has_counted(3, seconds(60)).await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let kept = operator.quarantine("").await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    let told = (&kept[0]["reason"], &kept[0]["messages"], kept[0]["valueSha256"].is_string());
    assert_eq!(told, (&json!("not_json"), &json!(2), true));
    assert_eq!(world.counted().await, 3);
    let (_, most) = service.memory();
    assert!(most < LIMIT, "{} MiB", most / 1024 / 1024);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// What is read at a time may be less than a message that the operator permits, which librdkafka refuses.
#[tokio::test]
async fn it_counts_whatever_an_operator_permits_a_message_to_have_and_after_the_next_start_too() {
    let world = World::new(1).await;
    for (counted, bytes) in [(10, 5_000_000), (20, 2_000_000)] {
        let service = world.setup().set("kafka.properties.message.max.bytes", bytes).start().await;
        world.produce(&many(10)).await;
        world.has_counted(counted, seconds(20)).await;
        world.at_rest().await;
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge().await;
}

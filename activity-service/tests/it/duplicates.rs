//! A message is delivered at least once and counted once, whatever comes in between.

use testing::{Topic, announcement};

use crate::world::{CREATED, World, created, figures, many, seconds};

#[tokio::test]
async fn a_message_that_stands_twice_in_one_batch_counts_once() {
    let world = World::new(1).await;
    let service = world.setup().set("consumer.batch_max_wait", "2s").start().await;
    world.produce(&[created()]).await;
    world.has_counted(1, seconds(20)).await;
    // The next batch waits for company now.
    let (one, other) = (created(), created());
    world.produce(&[one.clone(), other.clone(), one.clone(), other.clone(), one.clone(), created()]).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 4);
    let batches = "SELECT count(DISTINCT processed_at) FROM processed_messages";
    assert_eq!(world.database.number(batches).await, 2, "it was one batch");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_message_that_comes_again_in_a_later_batch_counts_once() {
    let world = World::new(2).await;
    let messages = many(20);
    let _service = world.setup().start().await;
    for _ in 0..3 {
        world.produce(&messages).await;
        world.at_rest().await;
        assert_eq!(world.counted().await, 20);
    }
    world.judge().await;
}

#[tokio::test]
async fn the_keys_are_not_forgotten_at_a_restart() {
    let world = World::new(2).await;
    let messages = many(20);
    for _ in 0..3 {
        world.produce(&messages).await;
        world.run_to_rest().await;
        assert_eq!(world.counted().await, 20);
    }
    world.judge().await;
}

#[tokio::test]
async fn the_same_reference_in_another_case_partition_or_topic_is_the_same_message() {
    let mut world = World::new(2).await;
    world.topics.push(Topic::new(1, &[]).await);
    let message = created();
    let upper = message.message_ref().unwrap().to_string().to_uppercase();
    for again in [
        message.clone().in_partition(0),
        message.clone().in_partition(0).with_field("messageRef", upper.clone()),
        message.clone().in_partition(1),
        message.clone().in_partition(1).with_field("messageRef", upper),
    ] {
        world.produce(&[again]).await;
    }
    world.topics[1].produce(&[message.clone().in_partition(0), created()]).await;
    let _service = world.setup().start().await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 2);
    world.judge().await;
}

#[tokio::test]
async fn the_reference_alone_decides_neither_headers_nor_key_nor_content() {
    let world = World::new(1).await;
    let message = created();
    let id = message.message_ref().unwrap().to_string();
    // What comes second is the duplicate, whatever it says.
    let mut otherwise = announcement("ORDER_CANCELLED", "2026-11-19T12:00:00Z").with_field("messageRef", id.clone());
    otherwise.key = None;
    let others = [
        created().with_header("ce_id", id),
        created().without_headers(),
        created().without_field("orderRef").without_field("orderVersion"),
        created().with_field("orderRef", "\0").with_field("note", serde_json::json!({"a": [1, {}]})),
    ];
    world.produce(&[message.clone(), otherwise, message.without_headers()]).await;
    world.produce(&others).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    assert_eq!(figures(&service, "/activities/2026-11-20").await, [("2026-11-20".into(), CREATED.into(), 5)]);
    assert_eq!(figures(&service, "/activities/2026-11-19").await, []);
    assert_eq!(world.quarantined().await, 0);
    world.judge().await;
}

#[tokio::test]
async fn with_the_groups_offsets_deleted_the_whole_topic_is_read_again_and_no_figure_changes() {
    let world = World::new(3).await;
    world.produce(&many(3000)).await;
    world.produce(&[created().with_value("not json"), created()]).await;
    world.run_to_rest().await;
    let before = world.content().await;
    for _ in 0..2 {
        world.topic().forget(&world.group).await;
        assert_eq!(world.topic().committed(&world.group, 3).await, [-1, -1, -1]);
        world.run_to_rest().await;
        assert_eq!(world.content().await, before);
    }
    assert_eq!(world.counted().await, 3001);
    world.judge().await;
}

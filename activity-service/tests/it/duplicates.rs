//! A message is delivered at least once and counted once, whatever comes in between.

use testing::{Received, Topic, announcement};

use crate::{
    operator::{EATEN, Operator, eaten, replayed_all},
    world::{CREATED, World, created, figures, many},
};

#[tokio::test]
async fn a_message_that_stands_twice_in_one_batch_counts_once() {
    let world = World::new(1).await;
    let (one, other) = (created(), created());
    world.produce(&[one.clone(), other.clone(), one.clone(), other.clone(), one.clone(), created()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 3);
    let batches = "SELECT count(DISTINCT processed_at) FROM processed_messages";
    assert_eq!(world.database.number(batches).await, 1, "it was one batch");
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
async fn the_reference_alone_decides_neither_headers_nor_key_nor_other_fields() {
    let world = World::new(1).await;
    let message = created();
    let id = message.message_ref().unwrap().to_string();
    let mut otherwise = message.clone().with_field("orderRef", "OS000043-ORD");
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
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: No activity is taken for a duplicate of another one.
#[tokio::test]
async fn another_type_or_time_under_a_reference_that_was_counted_is_no_duplicate_but_a_conflict() {
    let world = World::new(2).await;
    // Somebody has sent the references of orders first.
    let orders = many(30);
    let under = |message: &Received, code: &str, at: &str| {
        announcement(code, at).with_field("messageRef", message.message_ref().unwrap().to_string())
    };
    let cancelled: Vec<_> =
        orders[..26].iter().map(|order| under(order, "ORDER_CANCELLED", "2003-01-01T12:00:00Z")).collect();
    world.produce(&cancelled).await;
    world.run_to_rest().await;
    assert_eq!(world.counted().await, 26);
    world.produce(&orders).await;
    // Both in one batch, in one partition; of the second only the time is another, by a microsecond.
    let (one, other) = (created().in_partition(0), created().in_partition(0));
    let later = under(&other, CREATED, "2026-11-20T12:00:00.123457Z").in_partition(0);
    world.produce(&[one.clone(), under(&one, "ORDER_COMPLETED", "2026-11-20T12:00:00.123456Z").in_partition(0)]).await;
    world.produce(&[other.clone(), later.clone(), later, other]).await;
    let service = world.setup().start().await;
    world.at_rest().await;

    let operator = Operator::of(&service);
    let conflicts = operator.quarantine("reason=conflicting_copy").await;
    assert_eq!((world.counted().await, conflicts.len(), world.quarantined().await), (32, 28, 28));
    assert_eq!(figures(&service, "/activities/2026-11-20").await, [("2026-11-20".into(), CREATED.into(), 6)]);
    let messages: Vec<_> = conflicts.iter().map(|one| one["messages"].as_i64().unwrap()).collect();
    assert_eq!((messages.iter().sum::<i64>(), messages.iter().max()), (29, Some(&2)), "a conflict has copies too");
    let metrics = service.metrics().await;
    assert_eq!(metrics.sum("activity_duplicate_messages_total"), 1.0);
    assert_eq!(metrics.series[r#"activity_kept_messages_total{reason="conflicting_copy"}"#], 29.0);
    assert!(service.has_logged("messages have the references of other activities"));

    // Neither delivered again nor replayed does it become anything else.
    assert_eq!(operator.replay(None, &serde_json::json!({"force": true})).await.body, replayed_all(0, 0, 29));
    assert_eq!(service.stop().await, Some(0));
    let before = world.content().await;
    world.read_again().await;
    assert_eq!(world.content().await, before);
    world.judge().await;
}

#[tokio::test]
async fn of_two_that_wait_under_one_reference_the_first_is_counted_and_the_other_waits_on() {
    let world = World::new(1).await;
    let one = eaten();
    let other = one.clone().with_field("activityAt", "2026-11-19T12:00:00Z");
    world.produce(&[one.clone(), other, one]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let answer = Operator::of(&service).register(EATEN, "Order Eaten").await;
    assert_eq!(answer.body, serde_json::json!({"counted": 1, "duplicates": 1}));
    let waiting = Operator::of(&service).quarantine("").await;
    let waiting: Vec<_> = waiting.iter().map(|one| (&one["offset"], &one["reason"])).collect();
    assert_eq!(waiting, [(&serde_json::json!(1), &serde_json::json!("conflicting_copy"))]);
    assert_eq!(service.stop().await, Some(0));
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

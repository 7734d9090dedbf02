//! The process dies where it hurts, and the next one finds everything in the table.

use std::time::Duration;

use crate::world::{World, seconds};

#[tokio::test]
async fn killed_between_commit_and_send_every_order_is_announced_once_by_the_next_process() {
    for point in ["placement::committed", "publisher::before_send"] {
        let world = World::new().await;
        let mut service = world.setup().failpoint(point, "return").start().await;
        world.client(&service).load(40, 40).await;
        service.ended(seconds(5)).await;
        // A statement under way is carried out all the same.
        world.has_no_sessions().await;
        let placed = world.database.number("SELECT count(*) FROM orders").await;
        assert!(placed > 0 && world.count("unpublished").await == placed, "{point}: {placed} placed");

        let service = world.setup().start().await;
        world.at_rest(seconds(10)).await;
        assert_eq!(service.stop().await, Some(0));
        world.judge().await;
    }
}

#[tokio::test]
async fn killed_between_delivery_and_mark_a_message_may_come_twice_but_in_the_same_bytes() {
    let world = World::new().await;
    let mut service = world.setup().failpoint("marks::delivered", "return").start().await;
    world.client(&service).load(40, 40).await;
    service.ended(seconds(5)).await;
    world.has_no_sessions().await;
    assert_eq!(world.count("published").await, 0, "nothing is marked before it is delivered");
    let delivered = world.topic.dump().await.len();
    assert!(delivered > 0);

    let service = world.setup().start().await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    let placed = usize::try_from(world.database.number("SELECT count(*) FROM orders").await).unwrap();
    assert_eq!(world.topic.dump().await.len(), placed + delivered, "what was delivered, and only that, came again");
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_under_load_it_loses_nothing() {
    let world = World::new().await;
    for round in 0..5 {
        let service = world.setup().set("publisher.queue_capacity", 200).start().await;
        let client = world.client(&service);
        client.load_during(16, tokio::time::sleep(Duration::from_millis(300 + 170 * round))).await;
        client.load_during(16, service.kill()).await;
    }
    assert!(world.history.acknowledged().len() > 500);
    let service = world.setup().start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

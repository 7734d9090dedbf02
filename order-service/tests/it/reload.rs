use std::time::Instant;

use testing::wait_until;

use crate::world::{World, seconds};

const MEGABYTE: u64 = 1024 * 1024;

#[tokio::test]
async fn what_a_dead_process_left_unpublished_is_published_once_at_the_next_start() {
    let world = World::new().await;
    // Of two processes that are gone without a word, and of nobody.
    world.left_behind(700, 900).await;
    world.left_behind(1300, 901).await;
    world.left_behind(500, 0).await;
    let service = world.setup().set("reload.page_size", 300).start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn new_orders_are_accepted_while_a_backlog_of_50_000_is_published_in_bounded_memory() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 2000);
    let service = setup.start().await;
    world.client(&service).load(2000, 16).await;
    world.at_rest(seconds(20)).await;
    let (_, without_backlog) = service.memory();
    service.kill().await;

    world.left_behind(50_000, 900).await;
    let service = setup.start().await;
    let client = world.client(&service);
    let begun = Instant::now();
    client.place_one().await;
    assert!(begun.elapsed() < seconds(1), "took {:?}", begun.elapsed());
    assert!(world.count("unpublished").await > 0, "the backlog was gone before the test began");
    world.at_rest(seconds(60)).await;
    let (_, with_backlog) = service.memory();
    assert!(with_backlog < 64 * MEGABYTE, "{with_backlog} bytes");
    assert!(
        with_backlog < without_backlog + 12 * MEGABYTE,
        "{with_backlog} bytes, {without_backlog} without a backlog"
    );
    world.judge().await;
}

#[tokio::test]
async fn what_fails_of_one_kind_of_work_keeps_no_other_waiting_and_is_tried_once_a_look() {
    let world = World::new().await;
    // A look is a fifth of it.
    let service = world.setup().set("reload.page_size", 10).set("instance.takeover_after", "5s").start().await;
    world.database.execute("ALTER TABLE rebroadcasts RENAME TO elsewhere").await;
    world.left_by_ended(200, 0).await;
    world.at_rest(seconds(20)).await;
    wait_until("it is told", seconds(5), async || service.has_logged("cannot reload messages; trying again")).await;
    let refused = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let (begun, before) = (Instant::now(), world.database.number(refused).await);
    wait_until("it is tried again", seconds(20), async || world.database.number(refused).await > before + 6).await;
    assert!(begun.elapsed() >= seconds(3), "took {:?}", begun.elapsed());
    world.database.execute("ALTER TABLE elsewhere RENAME TO rebroadcasts").await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// librdkafka counts a message for a moment longer than it is in flight here.
#[tokio::test]
async fn a_backlog_that_fills_all_that_may_be_in_flight_is_no_outage() {
    let world = World::new().await;
    world.left_behind(600, 900).await;
    let setup = world.setup().set("publisher.max_in_flight", 100);
    let service = setup.failpoint("producer::told", "sleep(1)").start().await;
    world.at_rest(seconds(60)).await;
    let returned = service.metrics().await.sum_of("outbox_returned_messages_total", "reason", "outage");
    assert_eq!(returned, 0.0, "handed over and refused without an outage");
    assert!(!service.has_logged("kafka takes nothing; messages are taken, and wait"));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn an_order_that_found_no_room_is_published_as_soon_as_there_is_some() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 4);
    let service = setup.start().await;
    let client = world.client(&service);
    client.load(2000, 32).await;
    world.at_rest(seconds(20)).await;
    assert_eq!(world.history.others(), [].into());
    world.judge().await;
}

//! A message the broker refuses: its value is larger than the topic takes.

use testing::wait_until;
use uuid::Uuid;

use crate::world::{World, seconds};

/// The topic takes batches up to this many bytes: a few dozen messages.
const LIMIT: &str = "12000";

async fn world() -> World {
    let world = World::new().await;
    world.topic.create(2, &[("max.message.bytes", LIMIT)]).await;
    world
}

/// Makes the messages of the orders given too large, by a filling that does not compress.
async fn spoil(world: &World, orders: &str, bytes: usize) -> Vec<Uuid> {
    let statement = format!(
        "UPDATE outbox SET tracestate = (SELECT string_agg(md5(n::text || message_ref), '') FROM generate_series(1, {}) n)
        WHERE {orders} RETURNING message_ref",
        bytes / 32
    );
    sqlx::query_scalar(&statement).fetch_all(&world.database.pool).await.unwrap()
}

/// Holds: No rejection counts against a message that was not alone in its request.
#[tokio::test]
async fn messages_refused_up_to_the_threshold_stay_as_failed_and_their_neighbours_arrive() {
    let world = world().await;
    world.left_behind(2000, 900).await;
    // Two the broker refuses, one librdkafka refuses by itself, spread among the others.
    let mut spoilt = spoil(&world, "order_id IN (7, 1200)", 20_000).await;
    spoilt.extend(spoil(&world, "order_id = 600", 1_500_000).await);
    let setup = world.setup().set("publisher.backoff_initial", "10ms").set("publisher.backoff_max", "50ms");
    let service = setup.clone().set("publisher.max_failures", 4).start().await;
    let client = world.client(&service);
    client.load(200, 4).await;
    world.at_rest(seconds(30)).await;
    let failed =
        "SELECT count(*) FROM rejected_messages WHERE state = 'failed' AND failures = 4 AND last_error IS NOT NULL";
    assert_eq!(world.database.number(failed).await, 3);
    assert_eq!(service.stop().await, Some(0));

    // Another threshold later, and a restart, revive nothing.
    let service = setup.set("publisher.max_failures", 100).start().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    world.at_rest(seconds(10)).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(world.database.number(failed).await, 3);
    world.judge_with(|checker| checker.failed(spoilt)).await;
}

#[tokio::test]
async fn a_message_that_fails_is_neither_recorded_as_published_nor_forgotten() {
    let world = world().await;
    world.left_behind(20, 900).await;
    let spoilt = spoil(&world, "order_id = 5", 20_000).await;
    let setup = world.setup().set("publisher.backoff_initial", "50ms").set("publisher.backoff_max", "200ms");
    let service = setup.set("publisher.max_failures", 1000).start().await;
    let refused =
        format!("SELECT coalesce(max(failures), 0)::bigint FROM rejected_messages WHERE message_ref = '{}'", spoilt[0]);
    wait_until("it has been refused three times", seconds(20), async || world.database.number(&refused).await >= 3)
        .await;
    wait_until("its neighbours are published", seconds(20), async || world.count("published").await == 19).await;
    assert_eq!(world.count("unpublished").await, 1, "refused is not published");

    // The same process still has it: once the topic takes it, it arrives.
    world.topic.set("max.message.bytes", "100000").await;
    world.at_rest(seconds(20)).await;
    assert_eq!(world.count("published").await, 20);
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(testing::Checker::failures_allowed).await;
}

#[tokio::test]
async fn logs_that_wait_for_a_refused_message_keep_no_other_log_from_being_sent() {
    let world = world().await;
    for _ in 0..20 {
        world.left_by_ended(3, 1).await;
    }
    let setup = world.setup().set("publisher.backoff_initial", "50ms").set("publisher.backoff_max", "200ms");
    let service = setup.set("publisher.max_failures", 1000).start().await;
    wait_until("all others are published", seconds(20), async || world.count("published").await == 40).await;
    assert_eq!(world.count("unpublished").await, 20, "each of them waits in a log of its own");

    world.topic.set("max.message.bytes", "100000").await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(testing::Checker::failures_allowed).await;
}

#[tokio::test]
async fn more_refused_messages_than_may_wait_in_memory_block_no_other_and_all_end_as_failed() {
    let world = world().await;
    world.left_behind(60, 900).await;
    let spoilt = spoil(&world, "order_id % 2 = 0", 20_000).await;
    assert_eq!(spoilt.len(), 30);
    let setup = world.setup().set("publisher.queue_capacity", 8);
    let setup = setup.set("publisher.backoff_initial", "200ms").set("publisher.backoff_max", "400ms");
    let service = setup.set("publisher.max_failures", 3).start().await;
    let client = world.client(&service);
    client.load(200, 4).await;
    wait_until("the others are through", seconds(20), async || world.count("published").await == 230).await;
    world.at_rest(seconds(30)).await;
    assert_eq!(
        world.database.number("SELECT count(*) FROM rejected_messages WHERE state = 'failed' AND failures = 3").await,
        30
    );
    world.judge_with(|checker| checker.failed(spoilt)).await;
}

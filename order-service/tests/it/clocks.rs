//! Clocks that differ.

use testing::{Postgres, order_body, wait_until};

use crate::world::{World, seconds};

/// Holds: Only the database's clock decides which rows go and who is taken for gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_days_ahead_of_the_database_nothing_goes_early_and_nobody_is_taken_for_gone() {
    let postgres = Postgres::with_clock("-8d").await;
    let world = World::with_postgres(&postgres).await;
    let setup = world.setup().set("retention.every", "100ms").set("partitions.every", "100ms");
    let setup = setup.set("publisher.order", "strict");
    let slow = setup.clone().failpoint("publisher::lingers", "return(1000)");
    let (one, other) = tokio::join!(slow.start(), setup.start());
    let client = world.client(&one);
    client.load(100, 4).await;
    world.client(&other).load(100, 4).await;
    let body = order_body("twice");
    assert_eq!(client.place_under("key", &body).await.unwrap().status, 201);
    world.at_rest(seconds(20)).await;
    // How soon it is looked whether the beginning of an order is sent depends on its age, by the same clock.
    for _ in 0..5 {
        let order = client.place_one().await;
        assert_eq!(world.client(&other).change(&order, "complete").await.unwrap().status, 200);
    }
    world.at_rest(seconds(20)).await;

    // Of what the database takes for ten days old nothing is left after a purge.
    let old = "INSERT INTO rejections (message_ref, rejected_at, instance, failures, is_failed)
        SELECT gen_random_uuid(), now() - age, 1, 1, false FROM (VALUES (interval '30 days'), ('1 day')) AS one (age)";
    world.database.execute(old).await;
    world.old_day().await;
    let rejections = "SELECT count(*) FROM rejections";
    let days = "SELECT count(*) FROM pg_class WHERE relname ~ '^outbox_[0-9]+$'
        AND right(relname, 8) < to_char(now() - interval '8 days', 'YYYYMMDD')";
    wait_until("what is old goes", seconds(30), async || world.database.number(rejections).await == 1).await;
    wait_until("the old day goes", seconds(30), async || world.database.number(days).await == 0).await;
    assert_eq!(world.count("published").await, 211, "what is fresh stays");
    let again = client.place_under("key", &body).await.unwrap();
    assert_eq!(again.status, 201);
    assert_eq!(again.header("idempotency-replayed"), "true", "its key is known");
    let ended = "SELECT count(*) FROM instances WHERE ended_at IS NOT NULL";
    assert_eq!(world.database.number(ended).await, 0, "both live");

    // Who is gone is found to be, and what it left is sent.
    one.kill().await;
    world.left_by_ended(20, 0).await;
    world.client(&other).load(100, 4).await;
    wait_until("it is taken for gone", seconds(20), async || world.database.number(ended).await >= 2).await;
    world.at_rest(seconds(20)).await;
    assert_eq!(other.stop().await, Some(0));
    world.judge().await;
}

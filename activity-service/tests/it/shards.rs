//! Instances that count the same day do not wait for one another.

use testing::wait_until;

use crate::world::{World, created, has_partitions, many, seconds};

/// Transactions of the service that wait for a lock right now.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
    AND datname = current_database() AND application_name LIKE 'activity-service%'";

const SHARDS: &str = "SELECT count(DISTINCT shard) FROM daily_activity_shards";

#[tokio::test]
async fn who_counts_alone_has_one_row_a_day_and_type() {
    let world = World::new(2).await;
    for _ in 0..3 {
        world.produce(&many(100)).await;
        world.run_to_rest().await;
    }
    assert_eq!(world.database.number("SELECT count(*) FROM daily_activity_shards").await, 1);
    world.judge().await;
}

#[tokio::test]
async fn a_transaction_that_stands_still_with_a_shard_keeps_nobody_from_counting() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.run_to_rest().await;
    let mut other = world.database.pool.begin().await.unwrap();
    // "shar" in ASCII: another instance is in the middle of its batch.
    let lock: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(1936220530, 0)").fetch_one(&mut *other).await.unwrap();
    assert!(lock);
    sqlx::query("UPDATE daily_activity_shards SET quantity = quantity WHERE shard = 0")
        .execute(&mut *other)
        .await
        .unwrap();
    world.produce(&many(10)).await;
    let service = world.setup().start().await;
    world.has_counted(20, seconds(10)).await;
    assert_eq!(world.database.number(SHARDS).await, 2);
    other.rollback().await.unwrap();
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: No two transactions wait for each other's figures, up to 16 at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_instances_count_one_day_without_waiting_and_the_figures_are_the_keys() {
    let world = World::new(4).await;
    // Each batch stands still with its figures changed, so that the others meet it.
    let slow = world.setup().set("consumer.batch_max_messages", 50).failpoint("consumer::counted", "sleep(30)");
    let (one, two, three, four) = tokio::join!(slow.start(), slow.start(), slow.start(), slow.start());
    for service in [&one, &two, &three, &four] {
        has_partitions(service, |partitions| partitions == 1, seconds(60)).await;
    }
    let waits = async {
        let mut waits = 0;
        while world.counted().await < 3000 {
            waits += world.database.number(WAITING).await;
        }
        waits
    };
    let (written, waits) = world.topic().produce_during(created, world.recount().while_the_figures_agree(waits)).await;
    assert_eq!(waits, 0, "somebody waited for a lock");
    world.at_rest().await;
    assert!(world.database.number(SHARDS).await >= 3, "they did not meet");
    assert_eq!(world.counted().await, i64::try_from(written).unwrap());
    for service in [one, two, three, four] {
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge().await;
}

#[tokio::test]
async fn with_all_shards_taken_one_is_waited_for() {
    let world = World::new(1).await;
    let mut others = world.database.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1936220530, shard) FROM generate_series(0, 15) AS shard")
        .fetch_all(&mut *others)
        .await
        .unwrap();
    sqlx::query("INSERT INTO daily_activity_shards VALUES ('2026-11-20', 'ORDER_CREATED', 0, 1)")
        .execute(&mut *others)
        .await
        .unwrap();
    world.produce(&many(10)).await;
    let service = world.setup().start().await;
    world.has_waiting(1).await;
    others.rollback().await.unwrap();
    wait_until("they are counted", seconds(10), async || world.counted().await == 10).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

use std::time::Duration;

use testing::{Kafka, wait_until};

use crate::world::{World, created, figures, many, seconds};

async fn committed_equals_counted(world: &World, partitions: i32) {
    // Of a partition of which nothing was counted yet Kafka says -1.
    let counted = "SELECT coalesce(next_offset, -1) FROM generate_series(0, $1 - 1) AS partition
        LEFT JOIN consumer_positions USING (partition) ORDER BY partition";
    let counted: Vec<i64> = sqlx::query_scalar(counted).bind(partitions).fetch_all(&world.database.pool).await.unwrap();
    assert_eq!(world.topic().committed(&world.group, partitions).await, counted, "in Kafka, and in Postgres");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_0_and_leaves_kafka_with_exactly_what_is_counted() {
    let world = World::new(3).await;
    let setup = world.setup().set("consumer.batch_max_messages", 200).set("consumer.batch_max_wait", "5ms");
    let stopping = async {
        for round in 1..=3 {
            let mut service = setup.start().await;
            world.has_counted(round * 500, seconds(30)).await;
            tokio::time::sleep(Duration::from_millis(29 * round.unsigned_abs())).await;
            service.terminate();
            assert_eq!(service.ended(seconds(15)).await.code(), Some(0));
            committed_equals_counted(&world, 3).await;
        }
    };
    let (written, ()) = world.topic().produce_during(created, world.recount().while_the_figures_agree(stopping)).await;
    world.run_to_rest().await;
    assert_eq!(world.counted().await, i64::try_from(written).unwrap());
    world.judge().await;
}

#[tokio::test]
async fn during_the_delay_it_is_not_ready_and_still_counts_and_answers() {
    let world = World::new(1).await;
    let mut service = world.setup().set("shutdown.readiness_delay", "3s").start().await;
    world.produce(&many(10)).await;
    world.has_counted(10, seconds(20)).await;
    service.terminate();
    wait_until("it is not ready", Duration::from_millis(500), async || service.probe("ready").await == Some(503)).await;
    assert_eq!(service.probe("live").await, Some(200));
    world.produce(&many(10)).await;
    world.has_counted(20, seconds(2)).await;
    assert_eq!(figures(&service, "/activities/2026-11-20").await.len(), 1);
    assert_eq!(service.ended(seconds(10)).await.code(), Some(0));
    committed_equals_counted(&world, 1).await;
    world.judge().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = World::new(1).await;
    let mut service = world.setup().set("shutdown.readiness_delay", "1h").start().await;
    service.terminate();
    wait_until("it is stopping", seconds(5), async || service.has_logged("stopping")).await;
    service.terminate();
    assert_eq!(service.ended(seconds(2)).await.code(), Some(4));
    world.judge_nothing_counted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_without_a_broker_it_stops_in_time_and_nothing_is_counted_twice() {
    let mut kafka = Kafka::start().await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create(1, &[]).await;
    let mut service = world.setup().start().await;
    world.produce(&many(500)).await;
    world.has_counted(500, seconds(20)).await;
    kafka.crash().await;
    service.terminate();
    assert_eq!(service.ended(seconds(15)).await.code(), Some(0));
    kafka.start_again().await;
    world.produce(&many(100)).await;
    world.run_to_rest().await;
    assert_eq!(world.counted().await, 600);
    world.judge().await;
}

//! The process dies where it hurts; the next one counts what is left, and nothing twice.

use std::time::Duration;

use crate::world::{World, created, many, seconds};

/// Lets the service die at a point, on its third batch.
async fn dies_at(world: &World, point: &str) {
    let setup = world.setup().set("consumer.batch_max_messages", 100);
    let mut service = setup.failpoint(point, "2*off->return").start().await;
    let ended = service.ended(seconds(20)).await;
    assert_eq!(ended.code(), None, "{point}: killed by a signal");
    world.has_no_sessions().await;
    world.recount().no_offset_passes_the_database().await;
}

#[tokio::test]
async fn killed_between_the_commit_in_postgres_and_that_in_kafka_nothing_is_counted_twice() {
    let world = World::new(2).await;
    world.produce(&many(1000)).await;
    dies_at(&world, "consumer::after_commit").await;
    let counted = world.counted().await;
    let committed: i64 = world.topic().committed(&world.group, 2).await.into_iter().map(|offset| offset.max(0)).sum();
    assert!(counted == 300 && committed < counted, "{counted} counted, {committed} committed in Kafka");
    for _ in 0..2 {
        dies_at(&world, "consumer::after_commit").await;
    }
    world.run_to_rest().await;
    assert_eq!(world.counted().await, 1000);
    world.judge().await;
}

/// Holds: No figure changes without the keys it counts.
#[tokio::test]
async fn killed_before_the_commit_in_postgres_nothing_is_lost() {
    let world = World::new(2).await;
    world.produce(&many(1000)).await;
    dies_at(&world, "consumer::before_commit").await;
    assert_eq!(world.counted().await, 200);
    for _ in 0..2 {
        dies_at(&world, "consumer::before_commit").await;
    }
    world.run_to_rest().await;
    assert_eq!(world.counted().await, 1000);
    world.judge().await;
}

#[tokio::test]
async fn killed_with_a_batch_in_hand_nothing_is_lost() {
    let world = World::new(2).await;
    world.produce(&many(1000)).await;
    dies_at(&world, "consumer::batch_read").await;
    world.run_to_rest().await;
    assert_eq!(world.counted().await, 1000);
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_under_load_the_figures_are_exact() {
    let world = World::new(3).await;
    let setup = world.setup().set("consumer.batch_max_messages", 200).set("consumer.batch_max_wait", "5ms");
    let killing = async {
        for round in 1..=4 {
            let service = setup.start().await;
            world.has_counted(round * 500, seconds(40)).await;
            // Anywhere in the middle of a batch.
            tokio::time::sleep(Duration::from_millis(37 * round.unsigned_abs())).await;
            service.kill().await;
            world.recount().no_offset_passes_the_database().await;
        }
    };
    let watched = world.recount();
    let (written, ()) = world.topic().produce_during(created, watched.while_the_figures_agree(killing)).await;
    world.run_to_rest().await;
    assert_eq!(world.counted().await, i64::try_from(written).unwrap());
    world.judge().await;
}

//! Clocks that differ.

use testing::{Postgres, wait_until};

use crate::world::{World, created, many, seconds, undated};

/// Holds: Only the database's clock decides which keys go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_days_ahead_of_the_database_no_key_goes_early() {
    let postgres = Postgres::with_clock("-8d").await;
    let world = World::with_postgres(&postgres, 2).await;
    // References carry the time of whoever made them, which is eight days from the database's.
    let messages: Vec<_> = many(100).into_iter().chain(std::iter::repeat_with(undated).take(100)).collect();
    let setup = world.setup().set("retention.every", "50ms").set("retention.pause", "1ms");
    let service = setup.set("retention.processed_keys", "7d").start().await;
    world.produce(&messages).await;
    world.has_counted(200, seconds(20)).await;
    world.at_rest().await;
    // Nothing keeps their keys but their age.
    for (partition, end) in (0..).zip(world.topic().ends().await) {
        world.topic().delete_before(partition, end).await;
    }
    let last = async || service.health().await["components"]["retention"]["lastSuccess"].clone();
    for _ in 0..2 {
        let before = last().await;
        wait_until("a purge has passed", seconds(20), async || last().await != before).await;
    }
    world.produce(&messages).await;
    world.produce(&[created()]).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 201, "each is known");
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

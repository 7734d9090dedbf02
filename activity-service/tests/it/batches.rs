//! When what was read is counted.

use crate::world::{World, created, seconds};

/// Holds: Where no batch is being counted, what was read is counted at once.
#[tokio::test]
async fn what_is_read_while_nothing_is_counted_waits_for_nothing() {
    let world = World::new(1).await;
    let service = world.setup().set("consumer.batch_max_wait", "60s").start().await;
    for count in 1..=3 {
        world.produce(&[created()]).await;
        world.has_counted(count, seconds(20)).await;
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

//! Kafka says that more was read than the database has counted: a restored backup, a failover that lost the
//! last transactions, somebody who set the group's offsets. What is still there is counted.

use testing::wait_until;

use crate::world::{World, many, seconds};

const AHEAD: &str = "the group's offsets are ahead of the database";

/// Holds: No partition is read before it is known how far the database has counted it.
#[tokio::test]
async fn what_the_group_has_passed_and_the_database_has_not_is_counted() {
    let world = World::new(1).await;
    world.produce(&many(100)).await;
    world.run_to_rest().await;
    world.produce(&many(900)).await;
    world.topic().commit(&world.group, 1000).await;
    let service = world.setup().start().await;
    world.has_counted(1000, seconds(20)).await;
    world.at_rest().await;
    let lines: Vec<_> = service.log().into_iter().filter(|line| line["message"] == AHEAD).collect();
    assert_eq!(lines.len(), 1, "once: {lines:?}");
    assert_eq!((lines[0]["position"].as_i64(), lines[0]["committed"].as_i64()), (Some(100), Some(1000)));
    assert_eq!(service.metrics().await.sum("activity_offsets_ahead_total"), 1.0);
    assert_eq!((world.counted().await, world.quarantined().await), (1000, 0));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn so_is_what_it_has_passed_of_a_partition_that_the_database_does_not_know() {
    let world = World::new(1).await;
    world.produce(&many(20)).await;
    world.topic().commit(&world.group, 15).await;
    let service = world.setup().start().await;
    world.has_counted(20, seconds(20)).await;
    assert!(service.has_logged(AHEAD));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn offsets_beyond_the_end_of_the_topic_are_no_reason_to_wait_for_it_to_get_there() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.run_to_rest().await;
    world.topic().commit(&world.group, 500).await;
    let service = world.setup().start().await;
    world.produce(&many(10)).await;
    world.has_counted(20, seconds(20)).await;
    wait_until("it tells", seconds(20), async || service.has_logged(AHEAD)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

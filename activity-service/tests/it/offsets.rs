//! No offset in Kafka passes a message that is not dealt with in Postgres.

use testing::wait_until;

use crate::world::{World, many, seconds};

/// Holds: No offset is told to Kafka before its transaction has committed.
#[tokio::test]
async fn no_later_offset_is_stored_past_a_message_that_can_neither_be_counted_nor_kept() {
    let world = World::new(1).await;
    let messages = many(100);
    let refused = messages[40].message_ref().unwrap();
    world
        .database
        .execute(&format!(
            "ALTER TABLE processed_messages ADD CONSTRAINT not_this CHECK (message_ref <> '{refused}');
            ALTER TABLE quarantine ADD CONSTRAINT nor_here CHECK (reason <> 'not storable')"
        ))
        .await;
    world.produce(&messages).await;
    let service = world.setup().start().await;
    wait_until("the offset is that of the message", seconds(20), async || {
        world.topic().committed(&world.group, 1).await == [40]
    })
    .await;
    wait_until("it says what is wrong", seconds(5), async || service.has_logged("counting is refused by the database"))
        .await;
    // Later ones come, and wait behind it.
    world.produce(&many(50)).await;
    assert_eq!(service.stop().await, Some(0));
    assert_eq!(world.topic().committed(&world.group, 1).await, [40]);
    assert_eq!((world.counted().await, world.quarantined().await), (40, 0));
    world.recount().no_offset_passes_the_database().await;

    world.database.execute("ALTER TABLE quarantine DROP CONSTRAINT nor_here").await;
    world.run_to_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (149, 1));
    world.judge().await;
}

#[tokio::test]
async fn what_the_database_refuses_for_another_reason_is_no_fault_of_a_message() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    world.database.execute("REVOKE INSERT ON daily_activity_shards FROM test_service").await;
    world.produce(&many(100)).await;
    wait_until("it says what is wrong", seconds(20), async || {
        service.has_logged("counting is refused by the database")
    })
    .await;
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(world.topic().committed(&world.group, 1).await, [-1]);
    let components = service.health().await["components"].clone();
    assert_eq!(components["counting"]["state"], "waiting", "{components}");
    world.database.execute("GRANT INSERT ON daily_activity_shards TO test_service").await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (100, 0));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

//! What one of several instances takes on: a log, a message to be sent again, a rebroadcast. Another one takes it
//! between the moment in which the first has looked and the moment in which it takes.

use sqlx::{Connection, Executor, PgConnection};

use crate::world::{World, seconds};

/// The other instance.
const OTHER: i64 = 901;

/// Has the other instance take what `leave` leaves, in the middle of the statement by which a service takes it:
/// whose it is stands in `column` of `table`, in the row of `which`.
/// Holds: What an instance takes on is its own, also where two take it at the same moment.
async fn is_taken_once(table: &str, column: &str, which: &str, leave: impl AsyncFn(&World)) {
    let world = World::new().await;
    let service = world.setup().start().await;
    let mut other = PgConnection::connect(&world.database.url()).await.unwrap();
    other.execute(&*format!("SELECT pg_advisory_lock({OTHER})")).await.unwrap();
    world.database.execute(&format!("INSERT INTO instances (instance_id) VALUES ({OTHER})")).await;

    let mut held = world.updates_wait(table, column).await;
    leave(&world).await;
    world.a_statement_waits().await;
    let taking = format!("UPDATE {table} SET {column} = {OTHER} WHERE {which}");
    assert_eq!(held.execute(&*taking).await.unwrap().rows_affected(), 1);
    held.commit().await.unwrap();
    assert_eq!(service.stop().await, Some(0));
    let its = format!("SELECT count(*) FROM {table} WHERE {column} = {OTHER}");
    assert_eq!(world.database.number(&its).await, 1, "it is the other one's");

    // And is taken over like everything that an instance leaves.
    other.close().await.unwrap();
    let service = world.setup().start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_log_that_another_instance_adopts_in_the_same_moment_is_not_adopted_twice() {
    is_taken_once("instances", "adopter", "ended_at IS NOT NULL", async |world| world.left_by_ended(3, 0).await).await;
}

#[tokio::test]
async fn a_retry_that_another_instance_holds_in_the_same_moment_is_not_sent_twice() {
    is_taken_once("rejected_messages", "holder", "true", async |world| world.left_to_be_retried().await).await;
}

#[tokio::test]
async fn a_rebroadcast_that_another_instance_holds_in_the_same_moment_is_not_held_twice() {
    is_taken_once("rebroadcasts", "holder", "true", async |world| {
        let wanted = "INSERT INTO rebroadcasts (rebroadcast_id, from_at, to_at, done_to)
            SELECT gen_random_uuid(), at, at, first_reference(at) FROM (SELECT now() - interval '1 day' AS at) AS span";
        world.database.execute(wanted).await;
    })
    .await;
}

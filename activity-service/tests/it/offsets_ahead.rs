//! Kafka says that more was read than the database has counted: a restored backup, a failover that lost the
//! last transactions, somebody who set the group's offsets. What is still there is counted.

use testing::{Postgres, wait_until};
use time::OffsetDateTime;

use crate::{
    completeness::{minutes, progress_topic, tell, text},
    lag::lag_is,
    world::{World, many, seconds},
};

const AHEAD: &str = "the group's offsets are ahead of the database";
const LOST: &str = "the database has lost what it had counted: it is read again";

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

/// Holds: What a promoted server has lost of what was counted is counted again, by an instance that has never stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_that_lagged_and_was_promoted_does_not_have_is_counted_again() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres, 3).await;
    let service = world.setup().start().await;
    world.produce(&many(600)).await;
    world.at_rest().await;
    let follower = postgres.follower().await;
    postgres.cut_off(&follower).await;
    world.produce(&many(600)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 1200);
    postgres.is_replaced_by(follower).await;
    // Nothing new has to come.
    world.has_counted(1200, seconds(40)).await;
    assert!(service.has_logged(LOST));
    world.produce(&many(30)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 1230);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Takes the database back to what was remembered of it, all at once.
const REMEMBER: &str = "
    CREATE TABLE r_keys AS TABLE processed_messages;
    CREATE TABLE r_days AS TABLE daily_activity_shards;
    CREATE TABLE r_hours AS TABLE hourly_activity_shards;
    CREATE TABLE r_positions AS TABLE consumer_positions";
const GO_BACK: &str = "BEGIN;
    LOCK consumer_positions IN ACCESS EXCLUSIVE MODE;
    DELETE FROM processed_messages WHERE message_ref NOT IN (SELECT message_ref FROM r_keys);
    DELETE FROM daily_activity_shards; INSERT INTO daily_activity_shards TABLE r_days;
    DELETE FROM hourly_activity_shards; INSERT INTO hourly_activity_shards TABLE r_hours;
    DELETE FROM consumer_positions; INSERT INTO consumer_positions TABLE r_positions;
    COMMIT";

/// Holds: No message that is counted moves a position over what the database has lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_before_anybody_has_looked_do_not_jump_over_what_is_lost() {
    for counted_before in [100, 0] {
        let world = World::new(1).await;
        world.produce(&many(counted_before)).await;
        // So that no look is in time: they come with each batch that has jumped, and every 5 s.
        let service = world.setup().start().await;
        world.at_rest().await;
        world.database.execute(REMEMBER).await;
        world.produce(&many(100)).await;
        world.at_rest().await;
        world.database.execute(GO_BACK).await;
        world.produce(&many(10)).await;
        world.has_counted(counted_before as i64 + 110, seconds(30)).await;
        world.at_rest().await;
        assert_eq!(world.counted().await, counted_before as i64 + 110);
        let lines: Vec<_> = service.log().into_iter().filter(|line| line["message"] == LOST).collect();
        assert_eq!((lines.len(), lines[0]["counted"].as_u64()), (1, Some(counted_before as u64 + 100)), "{lines:?}");
        assert_eq!(service.stop().await, Some(0));
        world.judge().await;
    }
}

/// Holds: Where a position has passed messages that the topic has they are counted.
#[tokio::test]
async fn messages_that_were_jumped_over_and_are_there_are_counted() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.run_to_rest().await;
    world.produce(&many(30)).await;
    world.topic().commit(&world.group, 20).await;
    let name = &world.topic().name;
    world
        .database
        .execute(&format!(
            "UPDATE consumer_positions SET next_offset = 20;
             INSERT INTO consumption_gaps (topic, partition, from_offset, to_offset, state)
             VALUES ('{name}', 0, 10, 15, 'unchecked'), ('{name}', 0, 15, 20, 'unchecked')"
        ))
        .await;
    let service = world.setup().start().await;
    world.has_counted(40, seconds(30)).await;
    world.at_rest().await;
    assert!(service.has_logged("messages were jumped over: they are read again"));
    wait_until("nothing is left of the gaps", seconds(20), async || {
        world.database.number("SELECT count(*) FROM consumption_gaps").await == 0
    })
    .await;
    assert_eq!(world.counted().await, 40);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Nobody would be told that messages wait.
#[tokio::test]
async fn what_the_group_has_passed_and_the_database_has_not_is_lag() {
    let world = World::new(1).await;
    world.produce(&many(20)).await;
    world.run_to_rest().await;
    world.database.execute("UPDATE consumer_positions SET next_offset = 12").await;
    let setup = world.setup().set("metrics.lag_every", "500ms").failpoint("consumer::begun", "return");
    let service = setup.start().await;
    lag_is(&service, 8.0).await;
    assert_eq!(service.stop().await, Some(0));
    world.run_to_rest().await;
    world.judge().await;
}

/// Holds: What sources have told and the database has lost is noted again.
#[tokio::test]
async fn minutes_that_were_told_and_that_the_database_has_lost_are_noted_again() {
    let world = World::new(1).await;
    progress_topic(&world).await;
    let begin = OffsetDateTime::now_utc().replace_time(time::Time::MIDNIGHT) - time::Duration::DAY;
    let to = |minutes: i64| text(begin + time::Duration::minutes(minutes));
    let all = minutes(&world, begin, &[], &to(20), 0);
    assert_eq!(all.len(), 20);
    let service = world.setup().start().await;
    let noted = "SELECT count(*) FROM source_minutes";
    tell(&world, &all[..10]).await;
    wait_until("they are noted", seconds(20), async || world.database.number(noted).await == 10).await;
    world
        .database
        .execute("CREATE TABLE r_sources AS TABLE sources; CREATE TABLE r_minutes AS TABLE source_minutes")
        .await;
    tell(&world, &all[10..15]).await;
    wait_until("they are noted", seconds(20), async || world.database.number(noted).await == 15).await;
    let back = "BEGIN;
        DELETE FROM source_minutes; INSERT INTO source_minutes TABLE r_minutes;
        DELETE FROM sources; INSERT INTO sources TABLE r_sources;
        COMMIT";
    world.database.execute(back).await;
    tell(&world, &all[15..]).await;
    wait_until("all are noted", seconds(20), async || world.database.number(noted).await == 20).await;
    assert!(service.has_logged("the database has lost what the sources had told: it is read again"));
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

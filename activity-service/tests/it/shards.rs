//! Instances that count the same day do not wait for one another.

use std::collections::BTreeSet;

use sqlx::{Connection, PgConnection};
use testing::{Database, Topic, wait_until};

use crate::{
    key_days::up_to,
    operator::{EATEN, Operator},
    world::{World, created, has_partitions, many, seconds},
};

/// What transactions of the service wait for right now because of another one: its row, or its advisory lock.
/// Not a table that another one makes longer, nor the partitions of the next days, which each makes at its start.
const WAITING: &str = "SELECT coalesce(string_agg(DISTINCT wait_event || ': ' || left(query, 200), '; '), '')
    FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event NOT IN ('extend', 'relation')
    AND datname = current_database() AND application_name LIKE 'activity-service%'";

const SHARDS: &str = "SELECT count(DISTINCT shard) FROM daily_activity_shards";

/// The locks of the shards; the number of the shard is added.
const LOCKS: &str = "'daily_activity_shards'::regclass::oid::bigint << 32";

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

/// With the shards the newest.
const SHARDED: i64 = 20_261_129_000_002;

#[tokio::test]
async fn what_is_being_counted_while_the_shards_are_taken_back_is_carried_back_too() {
    let migrations = up_to(SHARDED);
    let database = Database::new(&migrations).await;
    let mut counting = database.pool.begin().await.unwrap();
    let counts = "INSERT INTO daily_activity_shards VALUES ('2026-11-20', 'ORDER_CREATED', 0, 7)";
    sqlx::raw_sql(counts).execute(&mut *counting).await.unwrap();
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let commit = async {
        wait_until("the way back waits", seconds(10), async || database.number(waiting).await > 0).await;
        counting.commit().await.unwrap();
    };
    let mut owner = PgConnection::connect(&database.owner_url()).await.unwrap();
    let (undone, ()) = tokio::join!(migrations.undo(&mut owner, SHARDED - 1), commit);
    undone.unwrap();
    assert_eq!(database.number("SELECT sum(quantity)::bigint FROM daily_activities").await, 7);
}

#[tokio::test]
async fn a_transaction_that_stands_still_with_a_shard_keeps_nobody_from_counting() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.run_to_rest().await;
    let mut other = world.database.pool.begin().await.unwrap();
    // Another instance is in the middle of its batch.
    let lock = format!("SELECT pg_try_advisory_xact_lock({LOCKS} | 0)");
    assert!(sqlx::query_scalar::<_, bool>(&lock).fetch_one(&mut *other).await.unwrap());
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
        let mut waits = BTreeSet::new();
        while world.counted().await < 3000 {
            waits.insert(sqlx::query_scalar::<_, String>(WAITING).fetch_one(&world.database.pool).await.unwrap());
        }
        waits
    };
    let (written, mut waits) =
        world.topic().produce_during(created, world.recount().while_the_figures_agree(waits)).await;
    waits.remove("");
    assert!(waits.is_empty(), "somebody waited for a lock: {waits:#?}");
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
    let locks = format!("SELECT pg_advisory_xact_lock({LOCKS} | shard) FROM generate_series(0, 15) AS shard");
    sqlx::query(&locks).fetch_all(&mut *others).await.unwrap();
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

/// Holds: No installation waits for one in another schema of the same database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_in_another_schema_takes_no_lock_of_this_one_for_its_own() {
    let world = World::new(1).await;
    world.database.grant_in("two").await;
    let in_two = |url: String| format!("{url}?options=-c%20search_path%3Dtwo");
    let owner = world.setup().set("database.url", in_two(world.database.owner_url()));
    let migrated = owner.run(&["migrate", "--new-installation"]).await;
    assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
    world.database.grant_in("two").await;
    let topic = Topic::new(1, &[]).await;
    let (setup, of_two) = (world.setup(), format!("{}-two", world.group));
    let in_two = world.setup().set("database.url", in_two(world.database.url()));
    let in_two = in_two.set("kafka.topics", &topic.name).set("kafka.group_id", of_two);
    let (one, two) = tokio::join!(setup.start(), in_two.start());

    // The first one stands still in the middle of a batch, with its locks.
    let mut other = world.database.pool.begin().await.unwrap();
    sqlx::query("INSERT INTO daily_activity_shards VALUES ('2026-11-20', 'ORDER_CREATED', 0, 1)")
        .execute(&mut *other)
        .await
        .unwrap();
    world.produce(&many(10)).await;
    world.has_waiting(1).await;
    topic.produce(&many(20)).await;
    let counted = "SELECT coalesce(sum(quantity) FILTER (WHERE shard = 0), 0)::bigint FROM two.daily_activity_shards";
    wait_until("the second one counts in its first shard", seconds(10), async || {
        world.database.number(counted).await == 20
    })
    .await;
    assert_eq!(Operator::of(&two).register(EATEN, "Order Eaten").await.status, 201);
    assert_eq!(world.counted().await, 0, "the first one stands still");
    other.rollback().await.unwrap();
    world.has_counted(10, seconds(20)).await;
    for service in [one, two] {
        assert_eq!(service.stop().await, Some(0));
    }
    topic.delete().await;
    world.judge().await;
}

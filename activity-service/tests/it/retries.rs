//! A transaction that fails through no fault of its data is repeated, and counts once.

use std::time::{Duration, Instant};

use testing::Proxy;

use crate::{
    operator::{EATEN, Operator, eaten, replayed_all},
    world::{CREATED, World, created, many, seconds},
};

#[tokio::test]
async fn conflicts_are_tried_again_at_once() {
    let world = World::new(1).await;
    world.produce(&many(100)).await;
    // A sequence remembers what a rolled back transaction did.
    world
        .database
        .execute(
            "CREATE SEQUENCE tries;
            GRANT USAGE ON SEQUENCE tries TO PUBLIC;
            CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE try bigint := nextval('tries');
            BEGIN
                IF try < 10 THEN
                    RAISE EXCEPTION 'conflict' USING ERRCODE = CASE try % 2 WHEN 0 THEN '40001' ELSE '40P01' END;
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER conflict BEFORE INSERT ON processed_messages EXECUTE FUNCTION conflict()",
        )
        .await;
    let patient = world.setup().set("consumer.backoff_initial", "60s").set("consumer.backoff_max", "60s");
    let service = patient.start().await;
    world.has_counted(100, seconds(15)).await;
    assert!(world.database.number("SELECT last_value FROM tries").await >= 10);
    world.at_rest().await;
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn the_victim_of_a_real_deadlock_is_tried_again_at_once() {
    let world = World::new(1).await;
    let message = created();
    let mut rival = world.database.pool.begin().await.unwrap();
    // Whoever looks first is the victim: not the rival.
    let figure = format!(
        "SET LOCAL deadlock_timeout = '60s';
        INSERT INTO daily_activity_shards VALUES ('2026-11-20', '{CREATED}', 0, 1)"
    );
    sqlx::raw_sql(&figure).execute(&mut *rival).await.unwrap();
    let patient = world.setup().set("consumer.backoff_initial", "60s").set("consumer.backoff_max", "60s");
    let service = patient.start().await;
    world.produce(std::slice::from_ref(&message)).await;
    world.has_waiting(1).await;
    // Now the service holds the key and waits for the figure; the rival asks for the key.
    let key = format!(
        r#"INSERT INTO processed_messages
            (message_ref, undated, activity_type_code, activity_date, activity_at, topic, partition, "offset")
        VALUES ('{}', false, '{CREATED}', '2026-11-20', now(), '', 0, 0)"#,
        message.message_ref().unwrap()
    );
    sqlx::raw_sql(&key).execute(&mut *rival).await.unwrap();
    rival.rollback().await.unwrap();
    let begun = Instant::now();
    world.has_counted(1, seconds(10)).await;
    assert!(begun.elapsed() < seconds(5), "{:?}", begun.elapsed());
    // Told by the statistics with some delay.
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    // More than one where the service is quicker than the rival to ask for the key again.
    let met = async || world.database.number(deadlocks).await > 0;
    testing::wait_until("the deadlock was real", seconds(5), met).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_on_the_way_counts_once() {
    let world = World::new(1).await;
    let proxy = Proxy::before(world.database.address()).await;
    let setup = world.setup().set("database.url", world.database.url_through(proxy.port()));
    let service = setup.start().await;
    for round in 1..=5 {
        proxy.swallow_answer_with("COMMIT");
        world.produce(&many(100)).await;
        world.at_rest().await;
        assert!(proxy.has_swallowed());
        assert_eq!(world.counted().await, 100 * round);
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_its_sessions_ended_and_its_connections_cut_under_load_the_figures_are_exact() {
    let world = World::new(3).await;
    let proxy = Proxy::before(world.database.address()).await;
    let setup = world.setup().set("database.url", world.database.url_through(proxy.port()));
    let service = setup.set("consumer.batch_max_messages", 100).start().await;
    let end_all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'activity-service%'";
    let breaking = async {
        for round in 1..=10 {
            world.has_counted(200 * round, seconds(20)).await;
            tokio::time::sleep(Duration::from_millis(13 * round.unsigned_abs())).await;
            if round % 2 == 0 {
                proxy.cut();
            } else {
                world.database.number(end_all).await;
            }
        }
    };
    let (written, ()) = world.topic().produce_during(created, world.recount().while_the_figures_agree(breaking)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, i64::try_from(written).unwrap());
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_batch_that_is_too_slow_is_halved_and_no_message_is_to_blame_for_it() {
    let world = World::new(1).await;
    world.produce(&many(150)).await;
    world
        .database
        .execute(
            "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF (SELECT count(*) FROM made) > 100 THEN PERFORM pg_sleep(60); END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER be_slow AFTER INSERT ON processed_messages REFERENCING NEW TABLE AS made
            FOR EACH STATEMENT EXECUTE FUNCTION be_slow()",
        )
        .await;
    let service = world.setup().start().await;
    world.has_counted(150, seconds(20)).await;
    assert!(service.has_logged("a batch is too slow and is halved"));
    // The next one begins with less, and wastes no time.
    world.produce(&many(150)).await;
    world.has_counted(300, seconds(8)).await;
    assert_eq!(world.quarantined().await, 0);
    // A single one that is too slow is waited for.
    world
        .database
        .execute(
            "CREATE OR REPLACE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$",
        )
        .await;
    world.produce(&[created()]).await;
    let failed = async || service.metrics().await.sum("activity_failed_attempts_total") >= 2.0;
    testing::wait_until("it was too slow", seconds(20), failed).await;
    world.database.execute("DROP TRIGGER be_slow ON processed_messages").await;
    world.has_counted(301, seconds(20)).await;
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: No message is in quarantine because of an outage, because it is slow, or because Postgres refuses good
/// ones too.
#[tokio::test]
async fn no_message_is_to_blame_while_the_database_refuses_good_ones_too() {
    let world = World::new(1).await;
    world.produce(&[eaten(), created()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    world.database.execute(&format!("INSERT INTO activity_types VALUES ('{EATEN}', 'Order Eaten')")).await;
    // As where a time zone is not known.
    world
        .database
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'no time zone' USING ERRCODE = '22023'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON processed_messages FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
        )
        .await;
    world.produce(&many(20)).await;
    let told = async || service.has_logged("counting is refused by the database");
    testing::wait_until("it says what is wrong", seconds(20), told).await;
    assert_eq!(operator.replay(None, &serde_json::json!({})).await.status, 500);
    assert_eq!((world.counted().await, world.quarantined().await), (1, 1));
    world.database.execute("DROP TRIGGER refuse ON processed_messages").await;
    world.has_counted(21, seconds(20)).await;
    assert_eq!(operator.quarantine("").await[0]["reason"], "unknown_type");
    assert_eq!(operator.replay(None, &serde_json::json!({})).await.body, replayed_all(1, 0, 0));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

//! Logs: behind their writer, ended under load, closed late, and adopted by many at once.

use std::time::Duration;

use testing::{Kafka, Postgres, order_body, wait_until};
use tokio::time::{sleep, timeout};

use crate::world::{TAKEN_OVER, World, identity, insertion, seconds};

const MEGABYTE: u64 = 1024 * 1024;

/// Holds: No message that commits behind the cursor is forgotten, and no cursor waits for a placement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_placement_of_unknown_outcome_holds_up_no_message_of_a_log_that_is_behind() {
    let world = World::new().await;
    // Eight slots under many callers: the log is behind nearly all the time.
    let service = world.setup().set("publisher.queue_capacity", 8).set("placement.tasks", 8).start().await;
    let client = world.client(&service);
    let held = world.insertions_wait("orders", "new.customer_ref LIKE 'slow%'").await;
    let slow = |number: u32| {
        let client = client.clone();
        tokio::spawn(async move { drop(client.post("/orders", &order_body(&format!("slow-{number}"))).await) })
    };
    client
        .load_during(32, async {
            wait_until("the log is behind", seconds(10), async || world.count("unpublished").await > 50).await;
            let placing = [slow(1), slow(2), slow(3)];
            world.a_statement_waits().await;
            let before = world.count("published").await;
            wait_until("others go on", seconds(10), async || world.count("published").await > before + 50).await;
            for one in placing {
                one.await.unwrap();
            }
        })
        .await;
    world.at_rest(seconds(30)).await;
    assert_eq!(world.database.number("SELECT count(*) FROM orders WHERE customer_ref LIKE 'slow%'").await, 0);
    held.rollback().await.unwrap();
    let placed = "SELECT count(*) FROM orders WHERE customer_ref LIKE 'slow%'";
    wait_until("the slow ones are placed", seconds(10), async || world.database.number(placed).await == 3).await;
    world.at_rest(seconds(30)).await;
    let slow = "SELECT order_ref(order_id), customer_ref FROM orders WHERE customer_ref LIKE 'slow%'";
    let slow: Vec<(String, String)> = sqlx::query_as(slow).fetch_all(&world.database.pool).await.unwrap();
    slow.iter().for_each(|(order, customer)| world.history.add(order, customer));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: No message is taken into memory twice by its writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_committed_before_their_task_learns_of_it_are_sent_once() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 4).failpoint("placement::committed", "50%sleep(50)");
    let service = setup.start().await;
    let client = world.client(&service);
    // The log is behind by a few, again and again, and pages of it are read before all of them are answered.
    for _ in 0..25 {
        client.load(16, 16).await;
        world.at_rest(seconds(10)).await;
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_ended_again_and_again_under_load_costs_no_order_and_doubles_no_message() {
    let world = World::new().await;
    let service = world.setup().set("publisher.queue_capacity", 100).start().await;
    let client = world.client(&service);
    client
        .load_during(16, async {
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let before = world.database.number("SELECT count(*) FROM instances").await;
                world.database.execute("UPDATE instances SET ended_at = now() WHERE ended_at IS NULL").await;
                let taken = async || world.database.number("SELECT count(*) FROM instances").await > before;
                wait_until("it takes a new identity", seconds(5), taken).await;
            }
        })
        .await;
    world.at_rest(seconds(10)).await;
    assert_eq!(world.history.others(), [].into(), "every order is accepted");
    let open = "SELECT count(*) FROM instances WHERE ended_at IS NOT NULL AND done_at IS NULL";
    wait_until("every log is done", seconds(5), async || world.database.number(open).await == 0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: No log is taken for closed by a snapshot, a clock or a time-out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_committed_after_its_instance_was_ended_is_sent_once_by_whoever_adopted_the_log() {
    let world = World::new().await;
    let slow = world.setup().start().await;
    let other = world.setup().start().await;
    let client = world.client(&slow);
    let held = world.insertions_wait("orders", "new.customer_ref = 'slow'").await;
    let placing = {
        let client = client.clone();
        tokio::spawn(async move { client.post("/orders", &order_body("slow")).await.map(|answer| answer.status) })
    };
    world.a_statement_waits().await;
    let log = identity(&slow);
    world.end(log).await;
    // Both may adopt it. Neither may take it for closed.
    let adopted = format!("SELECT count(*) FROM instances WHERE instance_id = {log} AND adopter IS NOT NULL");
    wait_until("its log is adopted", seconds(5), async || world.database.number(&adopted).await == 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let closed = format!("SELECT count(*) FROM instances WHERE instance_id = {log} AND closed_at IS NOT NULL");
    assert_eq!(world.database.number(&closed).await, 0);
    held.rollback().await.unwrap();
    wait_until("the log is closed", seconds(5), async || world.database.number(&closed).await == 1).await;
    let sent = format!("SELECT count(*) FROM outbox_messages WHERE instance = {log} AND state = 'published'");
    wait_until("the order is sent", seconds(5), async || world.database.number(&sent).await == 1).await;
    assert!(matches!(placing.await.unwrap(), Ok(201 | 503)));
    let order = "SELECT order_ref(order_id) FROM orders WHERE customer_ref = 'slow'";
    let order: String = sqlx::query_scalar(order).fetch_one(&world.database.pool).await.unwrap();
    world.history.add(&order, "slow");
    assert_eq!((slow.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn a_prepared_transaction_keeps_a_log_open_and_its_messages_are_sent_when_it_is_committed() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    world.database.execute("ALTER SYSTEM SET max_prepared_transactions = 4").await;
    postgres.stop().await;
    postgres.start_again().await;
    wait_until("it answers", seconds(10), async || sqlx::query("SELECT 1").execute(&world.database.pool).await.is_ok())
        .await;
    // One that has nothing to do with this database is no reason to wait.
    let elsewhere = sqlx::PgPool::connect(&format!("{}/postgres", postgres.url())).await.unwrap();
    sqlx::raw_sql("CREATE TABLE outbox (n int)").execute(&elsewhere).await.unwrap();
    let prepared = "BEGIN; INSERT INTO outbox VALUES (1); PREPARE TRANSACTION 'elsewhere'";
    sqlx::raw_sql(prepared).execute(&elsewhere).await.unwrap();
    let (log, quick) = (900, 901);
    world.left_behind(5, log).await;
    world.left_behind(5, quick).await;
    let prepared = format!("BEGIN; {}; PREPARE TRANSACTION 'late'", insertion(5, log));
    world.database.execute(&prepared).await;
    let service = world.setup().start().await;
    // What is there is sent all the same.
    wait_until("what is there is sent", seconds(10), async || world.count("published").await == 10).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let closed = "SELECT count(*) FROM instances WHERE closed_at IS NOT NULL";
    assert_eq!(world.database.number(closed).await, 0, "a prepared transaction may be of any log");
    world.database.execute("COMMIT PREPARED 'late'").await;
    wait_until("what came late is sent", seconds(5), async || world.count("published").await == 15).await;
    let done = "SELECT count(*) FROM instances WHERE done_at IS NOT NULL";
    wait_until("both logs are done", seconds(5), async || world.database.number(done).await == 2).await;
    sqlx::raw_sql("ROLLBACK PREPARED 'elsewhere'").execute(&elsewhere).await.unwrap();
    elsewhere.close().await;
    world.remember_left().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_sessions_begin_with_repeatable_read_loses_and_doubles_nothing() {
    let world = World::new().await;
    world
        .database
        .execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = %L', current_database(), 'repeatable read'); END $$")
        .await;
    let setup = world.setup().set("publisher.queue_capacity", 50);
    let mut killed = setup.start().await;
    let other = setup.start().await;
    let client = world.client(&other);
    client
        .load_during(8, async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            killed.terminate();
            assert_eq!(killed.ended(seconds(15)).await.code(), Some(0));
        })
        .await;
    world.at_rest(seconds(10)).await;
    assert_eq!(world.history.others(), [].into());
    assert_eq!(other.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_of_kafka_one_killed_and_three_started_send_every_message_once_in_bounded_memory() {
    let mut kafka = Kafka::start().await;
    let world = World::with_kafka(&kafka).await;
    let setup = world.setup().set("publisher.queue_capacity", 2000);
    let killed = setup.start().await;
    world.client(&killed).place_one().await;
    world.at_rest(seconds(10)).await;
    kafka.stop().await;
    world.client(&killed).load(6000, 16).await;
    let log = identity(&killed);
    // The rest of what an hour brings, in the same log.
    world.database.execute(&insertion(60_000, log)).await;
    world.remember_left().await;
    killed.kill().await;
    let started = [setup.start().await, setup.start().await, setup.start().await];
    let adopted = format!("SELECT count(*) FROM instances WHERE instance_id = {log} AND adopter IS NOT NULL");
    wait_until("its log is adopted", seconds(5), async || world.database.number(&adopted).await == 1).await;
    kafka.start_again().await;
    world.at_rest(seconds(60)).await;
    let done = format!("SELECT count(*) FROM instances WHERE instance_id = {log} AND done_at IS NOT NULL");
    wait_until("the log is done", seconds(5), async || world.database.number(&done).await == 1).await;
    // The end, the adoption, the closing and the end of the log: each of them one row.
    let updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'instances'";
    wait_until("the statistics have come", seconds(5), async || world.database.number(updates).await > 0).await;
    assert!(world.database.number(updates).await < 10);
    assert_eq!(started.iter().filter(|one| one.has_logged(TAKEN_OVER)).count(), 1);
    for instance in started {
        let (_, most) = instance.memory();
        assert!(most < 64 * MEGABYTE, "{most} bytes");
        assert_eq!(instance.stop().await, Some(0));
    }
    world.judge().await;
}

/// Holds: No message is in a log that is done, and no order, change or key passes where the fence keeps its message
/// out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_placed_by_an_instance_that_others_have_ended_is_in_no_log_that_is_done() {
    let world = World::new().await;
    // It learns of its end up to a second later than the other one, which is done with its log by then.
    let ended = world.setup().set("instance.takeover_after", "10s").start().await;
    let other = world.setup().start().await;
    let client = world.client(&ended);
    client
        .load_during(8, async {
            let living = format!(
                "SELECT coalesce(max(instance_id), 0) FROM instances WHERE ended_at IS NULL AND instance_id <> {}",
                identity(&other)
            );
            for _ in 0..4 {
                let log = world.database.number(&living).await;
                world.end(log).await;
                let done = format!("SELECT count(*) FROM instances WHERE instance_id = {log} AND done_at IS NOT NULL");
                wait_until("its log is done", seconds(10), async || world.database.number(&done).await == 1).await;
                wait_until("it has another identity", seconds(5), async || world.database.number(&living).await > 0)
                    .await;
            }
        })
        .await;
    world.at_rest(seconds(10)).await;
    assert_eq!(world.history.others(), [].into(), "every order is accepted");
    assert_eq!((ended.stop().await, other.stop().await), (Some(0), Some(0)));
    // It was not gone: what it had in flight may come twice.
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

/// Holds: No log is done before the mark of each of its messages is committed.
#[tokio::test]
async fn an_adopted_log_is_not_done_while_its_last_mark_is_on_its_way() {
    let world = World::new().await;
    world.left_by_ended(1, 0).await;
    let held = world.insertions_wait("published", "true").await;
    let service = world.setup().start().await;
    wait_until("it is on the topic", seconds(20), async || world.topic.dump().await.len() == 1).await;
    world.a_statement_waits().await;
    let done = "SELECT count(*) FROM instances WHERE done_at IS NOT NULL";
    let is_done = async {
        while world.database.number(done).await == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(timeout(seconds(3), is_done).await.is_err(), "the log is done, and nobody marks what it had");
    service.kill().await;
    // Else the server goes on without it.
    world.database.end_sessions().await;
    held.rollback().await.unwrap();
    let service = world.setup().start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(world.count("published").await, 1);
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

//! What proves that an instance lives is its session with the database: cut, terminated, or gone with
//! the whole server.

use std::time::Duration;

use serde_json::Value;
use testing::{Postgres, Proxy, Service, UNPUBLISHED, wait_until};

use crate::world::{TAKEN_OVER, World, identity, insertion, seconds};

/// Whether it is told that nothing is sent.
async fn outage(service: &Service) -> bool {
    service.metrics().await.sum("outbox_outage") == 1.0
}

/// One whose session passes a proxy, and another one.
async fn two(world: &World) -> (Proxy, Service, Service) {
    let proxy = Proxy::before(world.database.address()).await;
    let through = world.setup().set("database.session_url", world.database.url_through(proxy.port()));
    let cut = through.start().await;
    (proxy, cut, world.setup().start().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cut_for_less_than_a_takeover_waits_changes_nothing() {
    let world = World::new().await;
    let (proxy, cut, other) = two(&world).await;
    let me = identity(&cut);
    let client = world.client(&cut);
    client.route_to([cut.api(), other.api()]);
    client
        .load_during(8, async {
            for milliseconds in [0, 100, 200, 300, 400] {
                proxy.refuse();
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                proxy.pass();
                tokio::time::sleep(seconds(1)).await;
            }
        })
        .await;
    world.at_rest(seconds(10)).await;
    assert!(cut.has_logged("lost the session"));
    assert_eq!(identity(&cut), me, "it is who it was");
    assert!(!other.has_logged(TAKEN_OVER));
    assert_eq!(world.history.others(), [].into());
    assert_eq!((cut.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_cut_for_longer_costs_the_identity_and_no_message_comes_twice() {
    let world = World::new().await;
    let (proxy, cut, other) = two(&world).await;
    let me = identity(&cut);
    let client = world.client(&cut);
    client
        .load_during(8, async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            proxy.refuse();
            wait_until("the other one takes over", seconds(3), async || other.has_logged(TAKEN_OVER)).await;
            assert_eq!(identity(&cut), me, "without a session there is no new identity");
            wait_until("that is an outage", seconds(3), async || outage(&cut).await).await;
            proxy.pass();
            wait_until("it takes a new one", seconds(3), async || identity(&cut) != me).await;
            wait_until("the outage is over", seconds(3), async || !outage(&cut).await).await;
        })
        .await;
    assert!(world.history.others().keys().all(|status| status == "503"), "{:?}", world.history.others());
    let sent_before = world.count("published").await;
    client.load(100, 4).await;
    world.at_rest(seconds(5)).await;
    assert_eq!(world.unpublished_of(me).await, 0);
    let anew = format!("SELECT count(*) FROM outbox WHERE instance = {}", identity(&cut));
    assert!(world.database.number(&anew).await > 0 && sent_before > 0, "it sends under its new identity");
    assert_eq!((cut.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

/// Without it each session that is made is of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privilege_taken_from_a_running_service_is_named_and_given_back_it_sends_again() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for table in ["instances", "pause"] {
        world.database.execute(&format!("REVOKE SELECT ON {table} FROM test_service")).await;
        let named = |line: &Value| {
            line["message"] == "without a session with the database nothing is sent"
                && line["error"].as_str().is_some_and(|why| why.contains(table))
        };
        wait_until(table, seconds(10), async || service.log().iter().any(named)).await;
        assert!(outage(&service).await, "{table}");
        if table == "pause" {
            // Orders are taken all the same.
            client.place_one().await;
        }
        world.database.execute(&format!("GRANT SELECT ON {table} TO test_service")).await;
        wait_until("the outage is over", seconds(5), async || !outage(&service).await).await;
    }
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_falls_silent_stops_the_sending_and_nobody_else_takes_over() {
    let world = World::new().await;
    let (proxy, silent, other) = two(&world).await;
    let me = identity(&silent);
    let client = world.client(&silent);
    let mine = format!("SELECT count(*) FROM outbox_messages WHERE instance = {me} AND state = 'published'");
    client.load(50, 8).await;
    world.at_rest(seconds(5)).await;
    proxy.hold();
    // Confirmations count for half of what others wait.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let sent = world.database.number(&mine).await;
    client.load(50, 8).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.database.number(&mine).await, sent, "it sends without knowing that it lives");
    proxy.pass();
    world.at_rest(seconds(5)).await;
    assert_eq!((silent.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sessions_terminated_again_and_again_under_load_end_nobody_and_double_nothing() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 200);
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    client.route_to([one.api(), other.api()]);
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'order-service%'";
    client
        .load_during(16, async {
            for _ in 0..8 {
                assert!(world.database.number(terminate).await > 2);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert!(!one.has_logged(TAKEN_OVER) && !other.has_logged(TAKEN_OVER), "both return in time");
    assert_eq!(world.history.others(), [].into(), "every order is placed, once its outcome is known");
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_crashes_of_postgres_everyone_returns_before_anyone_is_ended() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    let setup = world.setup().set("publisher.queue_capacity", 500);
    let instances = [setup.start().await, setup.start().await, setup.start().await];
    let client = world.client(&instances[0]);
    client.route_to(instances.iter().map(Service::api));
    client
        .load_during(16, async {
            for outage in [0, 2, 6] {
                postgres.crash().await;
                tokio::time::sleep(seconds(outage)).await;
                postgres.start_again().await;
                for instance in &instances {
                    let back = async || instance.probe("ready").await == Some(200);
                    wait_until("it is back", seconds(10), back).await;
                }
                tokio::time::sleep(seconds(3)).await;
            }
        })
        .await;
    world.at_rest(seconds(20)).await;
    for instance in &instances {
        assert!(!instance.has_logged(TAKEN_OVER), "an outage of Postgres is nobody's end");
    }
    assert!(world.history.others().into_keys().eq(["503".to_owned()]), "{:?}", world.history.others());
    for instance in instances {
        assert_eq!(instance.stop().await, Some(0));
    }
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_commits_lost_under_load_of_two_instances_lose_and_double_nothing() {
    let world = World::new().await;
    let proxies = [Proxy::before(world.database.address()).await, Proxy::before(world.database.address()).await];
    let setup = world.setup().set("publisher.queue_capacity", 100);
    let through = |proxy: &Proxy| setup.clone().set("database.url", world.database.url_through(proxy.port()));
    let (one, other) = (through(&proxies[0]).start().await, through(&proxies[1]).start().await);
    let client = world.client(&one);
    client.route_to([one.api(), other.api()]);
    // What placements answer, and whatever else there is: marks, pages, adoptions.
    let ids = [identity(&one), identity(&other)];
    client
        .load_during(16, async {
            for lost in ["a placement", "INSERT ", "SELECT "].repeat(6) {
                for (proxy, id) in proxies.iter().zip(ids) {
                    match lost {
                        "a placement" => proxy.swallow_answer_with(id.to_be_bytes()),
                        tag => proxy.swallow_answer_with(tag),
                    }
                    wait_until("it is lost", seconds(10), async || proxy.has_swallowed()).await;
                }
            }
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert_eq!(world.history.others(), [].into());
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

/// Holds: A log whose row somebody has locked keeps no other log waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_somebody_else_on_the_row_of_an_adopted_log_stops_no_other_log() {
    let world = World::new().await;
    let service = world.setup().start().await;
    // It is adopted, and not closed while this transaction may write to it.
    let held = world.insertions_wait("orders", "new.customer_ref LIKE 'left-%'").await;
    let log = 900_000;
    world.database.execute(&format!("INSERT INTO instances (instance_id) VALUES ({log})")).await;
    let late = {
        let (pool, insertion) = (world.database.pool.clone(), insertion(1, log));
        tokio::spawn(async move { sqlx::raw_sql(&insertion).execute(&pool).await.unwrap() })
    };
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 42";
    wait_until("it waits", seconds(10), async || world.database.number(waits).await == 1).await;
    world.end(log).await;
    let adopted = format!("SELECT count(*) FROM instances WHERE instance_id = {log} AND adopter IS NOT NULL");
    wait_until("it is adopted", seconds(10), async || world.database.number(&adopted).await == 1).await;
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql(&format!("SELECT FROM instances WHERE instance_id = {log} FOR UPDATE"))
        .execute(&mut *lock)
        .await
        .unwrap();
    held.rollback().await.unwrap();
    late.await.unwrap();
    world.left_behind(20, 800_000).await;
    let unsent = "SELECT count(*) FROM outbox_messages WHERE state <> 'published' AND instance = 800000";
    wait_until("the other log is sent", seconds(15), async || world.database.number(unsent).await == 0).await;
    lock.rollback().await.unwrap();
    world.at_rest(seconds(10)).await;
    world.remember_left().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_somebody_else_on_the_rows_of_instances_stops_nobody() {
    let world = World::new().await;
    let (first, second) = (world.setup().start().await, world.setup().start().await);
    let client = world.client(&first);
    client.load(100, 8).await;
    let gone = identity(&second);
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM instances FOR UPDATE").execute(&mut *lock).await.unwrap();
    // Its end cannot be written while its row is locked.
    second.kill().await;
    client
        .load_during(8, async {
            for _ in 0..8 {
                tokio::time::sleep(seconds(1)).await;
                let ages = "SELECT coalesce(floor(extract(epoch FROM now() - min(activity_at))), 0)::bigint FROM";
                let others =
                    format!("{ages} {UNPUBLISHED} AS m JOIN outbox USING (message_ref) WHERE m.instance <> {gone}");
                let oldest = world.database.number(&others).await;
                assert!(oldest < 2, "the oldest message waits for {oldest} s");
            }
        })
        .await;
    assert!(!first.has_logged("lost the session"));
    assert_eq!(world.history.others(), [].into());
    let held = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND (classid::bigint << 32) | objid::bigint = {gone}"
    );
    lock.rollback().await.unwrap();
    wait_until("it is taken over", seconds(5), async || first.has_logged(TAKEN_OVER)).await;
    wait_until("its lock is let go", seconds(2), async || world.database.number(&held).await == 0).await;
    world.at_rest(seconds(10)).await;
    assert_eq!(first.stop().await, Some(0));
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

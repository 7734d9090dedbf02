//! A task that hangs is noticed by liveness; one that waits out an outage does not hang.

use std::time::Instant;

use serde_json::Value;
use testing::{Kafka, Postgres, Proxy, Service, Setup, wait_until};

use crate::world::{World, identity, seconds};

/// As soon as the setting allows.
fn noticed_soon(world: &World) -> Setup {
    world.setup().set("health.task_hung_after", "5s").set("retention.every", "100ms")
}

async fn state(service: &Service, component: &str) -> Value {
    let answer = reqwest::get(format!("{}/health/live", service.management())).await.unwrap();
    answer.json::<Value>().await.unwrap()["components"][component]["state"].clone()
}

/// Blocks the thread that comes to `point`, sees that this is noticed, and that a restart cures it.
async fn hang_at(point: &str, component: &str) {
    let world = World::new().await;
    let service = noticed_soon(&world).failpoint(point, "pause").spawn();
    let listens = |line: &Value| line["message"] == "listening" && line["server"] == "api";
    wait_until("the API listens", seconds(30), async || service.log().iter().any(listens)).await;
    assert_eq!(service.probe("live").await, Some(200));
    // What the point needs to be reached; nobody waits for the answer.
    let client = world.client(&service);
    let order = tokio::spawn(async move {
        let order_ref = client.place_one().await;
        client.change(&order_ref, "complete").await
    });
    wait_until(component, seconds(40), async || state(&service, component).await == "hung").await;
    assert_eq!(service.probe("live").await, Some(503));
    let age = format!("task_heartbeat_age_seconds{{task=\"{component}\"}}");
    assert!(service.metrics().await.series[&age] >= 5.0);
    service.kill().await;
    drop(order.await);

    let service = noticed_soon(&world).start().await;
    world.client(&service).place_one().await;
    world.at_rest(seconds(30)).await;
    world.judge_with(|checker| checker.duplicates_allowed().purge_allowed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_placement_task_that_hangs_is_noticed() {
    hang_at("placement::before", "placement").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_changes_orders_and_hangs_is_noticed() {
    hang_at("change::before", "changes").await;
}

/// Holds: No task of order-service hangs unnoticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_hangs_is_noticed() {
    hang_at("publisher::before_send", "publisher").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_that_hang_are_noticed() {
    hang_at("marks::delivered", "marks").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_hangs_is_noticed() {
    hang_at("session::looked", "session").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retention_that_hangs_is_noticed() {
    hang_at("retention::before_forgetting", "retention").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_whose_making_hangs_are_noticed() {
    hang_at("partitions::before_making", "partitions").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_of_the_api_that_hangs_is_noticed() {
    hang_at("http::handler", "api").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_of_the_runtime_that_a_task_blocks_is_noticed() {
    hang_at("placement::before", "runtime").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_hangs_is_noticed() {
    let world = World::new().await;
    world.left_by_ended(10, 0).await;
    let service = noticed_soon(&world).failpoint("adoption::before", "pause").start().await;
    wait_until("reload", seconds(40), async || state(&service, "reload").await == "hung").await;
    assert_eq!(service.probe("live").await, Some(503));
    service.kill().await;
    let service = noticed_soon(&world).start().await;
    world.at_rest(seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: No liveness probe fails because Postgres or Kafka is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outages_of_postgres_and_kafka_longer_than_the_limit_hang_nobody() {
    let (mut postgres, mut kafka) = (Postgres::start().await, Kafka::start().await);
    let mut world = World::with_postgres(&postgres).await;
    world.topic = testing::Topic::unborn_on(&kafka);
    let service = noticed_soon(&world).set("publisher.queue_capacity", 100).start().await;
    let client = world.client(&service);
    let lives = async |for_seconds| {
        let begin = Instant::now();
        while begin.elapsed() < seconds(for_seconds) {
            assert_eq!(service.probe("live").await, Some(200));
            tokio::time::sleep(seconds(1) / 10).await;
        }
    };
    client
        .load_during(4, async {
            lives(2).await;
            kafka.stop().await;
            lives(8).await;
            postgres.crash().await;
            lives(10).await;
            postgres.start_again().await;
            kafka.start_again().await;
            lives(2).await;
        })
        .await;
    world.at_rest(seconds(60)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.duplicates_allowed()).await;
}

#[tokio::test]
async fn a_process_that_was_stopped_for_longer_than_the_limit_did_not_hang() {
    let world = World::new().await;
    let service = noticed_soon(&world).start().await;
    service.pause();
    tokio::time::sleep(seconds(8)).await;
    service.resume();
    for _ in 0..20 {
        assert_eq!(service.probe("live").await, Some(200));
    }
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_fall_silent_hang_nobody_and_neither_does_an_identity_that_waits_for_its_messages() {
    let (kafka, kafka_proxy) = Kafka::behind_proxy().await;
    let world = World::with_kafka(&kafka).await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = noticed_soon(&world).set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    client.place_one().await;
    world.at_rest(seconds(10)).await;
    let lives = async |for_seconds| {
        let begin = Instant::now();
        while begin.elapsed() < seconds(for_seconds) {
            assert_eq!(service.probe("live").await, Some(200), "{:?}", service.health().await);
            tokio::time::sleep(seconds(1) / 10).await;
        }
    };
    kafka_proxy.hold();
    client.load(20, 4).await;
    // It is replaced once these have landed.
    world.end(identity(&service)).await;
    wait_until("orders are taken although these do not land", seconds(10), async || {
        client.place().await.is_ok_and(|answer| answer.status == 201)
    })
    .await;
    lives(10).await;
    proxy.hold();
    lives(14).await;
    proxy.pass();
    kafka_proxy.pass();
    lives(2).await;
    world.at_rest(seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.duplicates_allowed()).await;
}

//! A task that hangs is noticed by liveness; one that waits out an outage does not hang.

use std::time::Instant;

use serde_json::Value;
use testing::{Postgres, Proxy, Service, Setup, wait_until};

use crate::world::{World, many, seconds, undated};

/// As soon as the setting allows.
fn noticed_soon(world: &World) -> Setup {
    world
        .setup()
        .set("health.task_hung_after", "5s")
        .set("retention.every", "100ms")
        .set("retention.processed_keys", "0s")
}

async fn state(service: &Service, component: &str) -> Value {
    let answer = reqwest::get(format!("{}/health/live", service.management())).await.unwrap();
    answer.json::<Value>().await.unwrap()["components"][component]["state"].clone()
}

/// Blocks the thread that comes to `point`, sees that this is noticed, and that a restart cures it.
async fn hang_at(point: &str, component: &str) {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.produce(&[undated()]).await;
    let service = noticed_soon(&world).failpoint(point, "pause").start().await;
    // Some look every 5 s, and the longest piece of work may take 30 s before the setting counts.
    wait_until(component, seconds(60), async || state(&service, component).await == "hung").await;
    assert_eq!(service.probe("live").await, Some(503));
    let age = format!("task_heartbeat_age_seconds{{task=\"{component}\"}}");
    assert!(service.metrics().await.series[&age] >= 5.0);
    service.kill().await;
    world.run_to_rest().await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_that_hangs_is_noticed() {
    hang_at("consumer::offsets_told", "consumer").await;
}

/// Holds: No task of activity-service hangs unnoticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counting_that_hangs_is_noticed() {
    hang_at("consumer::counted", "counting").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuity_that_hangs_is_noticed() {
    hang_at("consumer::offsets_stored", "continuity").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retention_that_hangs_is_noticed() {
    hang_at("retention::before_commit", "retention").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lag_that_hangs_is_noticed() {
    hang_at("lag::asked", "lag").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_postgres_longer_than_the_limit_hangs_nobody() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres, 2).await;
    let service = noticed_soon(&world).set("retention.processed_keys", "30d").start().await;
    world.produce(&many(100)).await;
    world.has_counted(100, seconds(30)).await;
    postgres.crash().await;
    world.produce(&many(100)).await;
    let begin = Instant::now();
    while begin.elapsed() < seconds(12) {
        assert_eq!(service.probe("live").await, Some(200));
        tokio::time::sleep(seconds(1) / 10).await;
    }
    let lag = service.metrics().await.sum("activity_consumer_lag_seconds");
    assert!(lag > 5.0, "{lag} s");
    postgres.start_again().await;
    world.has_counted(200, seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_hangs_nobody() {
    let world = World::new(2).await;
    let proxy = Proxy::before(world.database.address()).await;
    let database = world.database.url_through(proxy.port());
    let service =
        noticed_soon(&world).set("retention.processed_keys", "30d").set("database.url", database).start().await;
    world.produce(&many(100)).await;
    world.has_counted(100, seconds(30)).await;
    proxy.hold();
    world.produce(&many(100)).await;
    let begin = Instant::now();
    // An attempt at a batch is given up after 15 s only.
    while begin.elapsed() < seconds(18) {
        assert_eq!(service.probe("live").await, Some(200));
        tokio::time::sleep(seconds(1) / 10).await;
    }
    proxy.pass();
    world.has_counted(200, seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

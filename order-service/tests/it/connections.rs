//! The server permits fewer connections than the pools want.

use testing::wait_until;

use crate::world::{World, seconds};

/// Of everybody who is not a superuser, in this database.
async fn permit(world: &World, connections: u32) {
    let limit = format!(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT {connections}', current_database()); END $$"
    );
    world.database.execute(&limit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_burst_of_orders_reads_are_answered_though_the_pools_want_more_than_is_permitted() {
    let world = World::new().await;
    permit(&world, 8).await;
    let service = world.setup().start().await;
    wait_until("it says so", seconds(5), async || {
        service.has_logged("fewer connections are permitted than this instance wants")
    })
    .await;
    let client = world.client(&service);
    // More than the permitted connections are asked for.
    client.load(3000, 64).await;
    let url = format!("{}/orders", service.api());
    wait_until("at rest reads are answered", seconds(90), async || {
        let reads = (0..20).map(|_| reqwest::get(&url));
        let answers = futures_util::future::join_all(reads).await;
        answers.into_iter().all(|answer| answer.unwrap().status() == 200)
    })
    .await;
    assert_eq!(service.probe("ready").await, Some(200));
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: An instance that cannot answer reads wants no traffic, though it could place orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_wants_no_traffic_while_no_read_gets_a_connection() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    assert_eq!(client.get("/orders").await.status, 200);
    // Those that are there go on.
    permit(&world, 0).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'order-service requests'";
    world.database.execute(cut).await;
    wait_until("it is not ready", seconds(10), async || service.probe("ready").await == Some(503)).await;
    assert_eq!(client.get("/orders").await.status, 503);
    permit(&world, 100).await;
    wait_until("it is ready", seconds(10), async || service.probe("ready").await == Some(200)).await;
    assert_eq!(client.get("/orders").await.status, 200);
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_cut_comes_back_though_the_pools_have_taken_its_slot() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client
        .load_during(64, async {
            let pooled = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'order-service'";
            wait_until("the pool has several", seconds(10), async || world.database.number(pooled).await >= 4).await;
            // As many as there are: whoever comes next has to wait until one goes.
            permit(&world, 4).await;
            for _ in 0..3 {
                let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'order-service session'";
                world.database.execute(cut).await;
                tokio::time::sleep(seconds(2)).await;
            }
        })
        .await;
    world.at_rest(seconds(5)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

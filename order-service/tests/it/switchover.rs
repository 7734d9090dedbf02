//! The server behind the address becomes a standby, and a primary again on another timeline.

use serde_json::Value;
use testing::{Client, History, Postgres, wait_until};

use crate::{
    verify::verify,
    world::{World, identity, seconds},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_costs_503_and_the_identity_and_loses_and_doubles_nothing() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(50, 4).await;
    world.at_rest(seconds(10)).await;
    let before = identity(&service);
    client
        .load_during(8, async {
            postgres.become_standby().await;
            wait_until("it is not ready", seconds(10), async || service.probe("ready").await == Some(503)).await;
            // Reads would be answered by what is there; they are 503 as well, for nobody knows how old that is.
            tokio::time::sleep(seconds(3)).await;
            assert_eq!(client.get("/orders").await.status, 503);
            assert_eq!(service.probe("live").await, Some(200));
            postgres.promote().await;
            wait_until("it is ready", seconds(10), async || service.probe("ready").await == Some(200)).await;
            wait_until("it reads its log anew", seconds(10), async || service.has_logged("the database was promoted"))
                .await;
            tokio::time::sleep(seconds(1)).await;
        })
        .await;
    assert!(world.history.others().keys().all(|status| status == "503"), "{:?}", world.history.others());
    world.at_rest(seconds(10)).await;
    assert_ne!(identity(&service), before);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: After a promotion that has lost the tail everything is sent that is left, and nothing of it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_promotion_of_a_server_that_lagged_all_that_it_has_is_on_the_topic() {
    const LOST: u64 = 300;
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(300, 4).await;
    world.at_rest(seconds(10)).await;
    let follower = postgres.follower().await;
    postgres.cut_off(&follower).await;
    Client::new(service.api(), &History::default()).load(LOST, 4).await;
    world.at_rest(seconds(10)).await;
    let before = identity(&service);
    postgres.is_replaced_by(follower).await;
    wait_until("it is ready", seconds(20), async || service.probe("ready").await == Some(200)).await;
    wait_until("it reads its log anew", seconds(20), async || service.has_logged("the database was promoted")).await;
    client.load(300, 4).await;
    world.at_rest(seconds(20)).await;
    assert_ne!(identity(&service), before);
    let verified = verify(&world.setup()).await;
    let sums: Value = serde_json::from_slice(&verified.stdout).unwrap();
    let told = ["unknown", "missing", "notPublished"].map(|name| sums[name].as_i64().unwrap());
    assert_eq!(told, [LOST.cast_signed(), 0, 0], "{sums}");
    assert_eq!(world.database.number("SELECT count(*) FROM outbox").await, 600);
    assert_eq!(service.stop().await, Some(0));
    // What was lost stands on the topic.
    world.without_judgement();
}

#[tokio::test]
async fn on_a_standby_it_waits_for_a_primary() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    postgres.become_standby().await;
    let service = world.setup().spawn();
    wait_until("it waits", seconds(10), async || service.has_logged("waiting for the database")).await;
    assert_eq!((service.probe("live").await, service.probe("startup").await), (Some(200), Some(503)));
    postgres.promote().await;
    wait_until("it has started", seconds(10), async || service.probe("startup").await == Some(200)).await;
    world.client(&service).load(20, 4).await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_connection_whose_server_takes_no_writes_is_given_up() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.place_one().await;
    world.at_rest(seconds(10)).await;
    let all = "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'order-service%'";
    let before: Vec<i32> = sqlx::query_scalar(all).fetch_one(&world.database.pool).await.unwrap();
    let standby = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE 'as a standby says' USING ERRCODE = '25006'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION refuse()";
    world.database.execute(standby).await;
    assert_eq!(client.place().await.unwrap().status, 503);
    // Long before it would be too old.
    wait_until("it is given up", seconds(20), async || {
        let now: Vec<i32> = sqlx::query_scalar(all).fetch_one(&world.database.pool).await.unwrap();
        before.iter().any(|pid| !now.contains(pid))
    })
    .await;
    world.database.execute("DROP TRIGGER refuse ON orders").await;
    client.place_one().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

use std::time::{Duration, Instant};

use testing::{Postgres, Proxy, wait_until};

use crate::world::{World, seconds};

const WITHIN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_gone_for_30_s_each_order_is_refused_within_3_s_and_then_it_heals() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(2000, 16).await;
    let (before, _) = service.memory();

    client
        .load_during(16, async {
            postgres.crash().await;
            world.history.take_slowest();
            let gone = Instant::now();
            wait_until("it is not ready", seconds(5), async || service.probe("ready").await == Some(503)).await;
            assert_eq!(service.probe("live").await, Some(200));
            tokio::time::sleep(seconds(30).saturating_sub(gone.elapsed())).await;
            let slowest = world.history.take_slowest();
            assert!(slowest < WITHIN + Duration::from_millis(100), "an answer took {slowest:?}");
            postgres.start_again().await;
            wait_until("it is ready", seconds(5), async || service.probe("ready").await == Some(200)).await;
            world.history.take_slowest();
            client.load(200, 4).await;
        })
        .await;
    let (after, _) = service.memory();
    assert!(after < before + (8 << 20), "{before} bytes before the outage, {after} after");
    let others: Vec<_> = world.history.others().into_keys().collect();
    assert_eq!(others, ["503"]);
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_database_that_falls_silent_is_answered_for_within_3_s_and_no_order_is_placed_twice() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    client.load(200, 8).await;
    client
        .load_during(8, async {
            proxy.hold();
            tokio::time::sleep(seconds(7)).await;
            proxy.pass();
            tokio::time::sleep(seconds(1)).await;
        })
        .await;
    assert!(world.history.others().into_keys().eq(["503".to_owned()]), "{:?}", world.history.others());
    let slowest = world.history.take_slowest();
    assert!(slowest < WITHIN + Duration::from_millis(100), "an answer took {slowest:?}");
    client.load(20, 4).await;
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_full_line_of_waiting_orders_is_503_at_once() {
    let world = World::new().await;
    let setup = world.setup().set("placement.waiting_line", 5).set("placement.tasks", 1);
    let service = setup.start().await;
    let client = world.client(&service);
    client.place_one().await;
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let (filling, begun) = (client.clone(), Instant::now());
    let filling = tokio::spawn(async move { filling.load(40, 40).await });
    wait_until("those without room are answered", seconds(1), async || !world.history.others().is_empty()).await;
    assert!(begun.elapsed() < seconds(1));
    lock.rollback().await.unwrap();
    filling.await.unwrap();
    let others = world.history.others();
    assert!(others.keys().eq(["503"]) && others["503"] < 40, "{others:?}");
    world.at_rest(seconds(10)).await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_lock_on_the_tables_of_orders_and_messages_is_made_good_when_it_ends() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client
        .load_during(8, async {
            wait_until("orders are taken", seconds(10), async || world.history.acknowledged().len() > 100).await;
            // As VACUUM FULL and REINDEX do.
            let mut lock = world.database.pool.begin().await.unwrap();
            let tables = "LOCK TABLE orders, outbox, published IN ACCESS EXCLUSIVE MODE";
            sqlx::raw_sql(tables).execute(&mut *lock).await.unwrap();
            wait_until("orders are refused", seconds(10), async || !world.history.others().is_empty()).await;
            let before = world.history.acknowledged().len();
            lock.rollback().await.unwrap();
            // More than were waiting.
            let taken = async || world.history.acknowledged().len() > before + 100;
            wait_until("orders are taken again", seconds(3), taken).await;
        })
        .await;
    assert!(world.history.others().keys().eq(["503"]), "{:?}", world.history.others());
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_database_that_is_absent_at_start_is_waited_for() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    proxy.refuse();
    let mut service = world.setup().set("database.url", world.database.url_through(proxy.port())).spawn();
    wait_until("it lives", seconds(5), async || service.probe("live").await == Some(200)).await;
    assert_eq!(service.probe("startup").await, Some(503));
    assert_eq!(service.probe("ready").await, Some(503));
    proxy.pass();
    service.ready().await;
    assert_eq!(service.probe("startup").await, Some(200));
    world.client(&service).place_one().await;
    world.at_rest(seconds(5)).await;
    world.judge().await;
}

#[tokio::test]
async fn what_the_server_has_answered_with_an_error_is_known_not_to_be_placed() {
    let world = World::new().await;
    let limits = "DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''100ms''', current_database()); END $$";
    world.database.execute(limits).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.place_one().await;
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE orders IN EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let begun = Instant::now();
    let refused = client.place().await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(begun.elapsed() < seconds(1), "nothing is unknown that would have to be found out");
    lock.rollback().await.unwrap();
    client.place_one().await;
    world.at_rest(seconds(5)).await;
    assert_eq!(world.database.number("SELECT count(*) FROM orders").await, 2);
    world.judge().await;
}

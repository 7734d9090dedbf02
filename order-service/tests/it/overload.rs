use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use testing::{Signer, order_body, wait_until};
use tokio::task::JoinSet;

use crate::world::{World, seconds};

/// Holds: The text of a panic, which may quote a caller, is in no log above level debug.
#[tokio::test]
async fn a_handler_that_panics_costs_one_request_and_is_logged_once_without_its_text() {
    let world = World::new().await;
    let service = world.setup().failpoint("http::handler", "1*return(canary)").start().await;
    let client = world.client(&service);
    let headers = [("content-type", "application/json")];
    let body = serde_json::to_vec(&order_body("C-1")).unwrap();
    let answer = client.ask(Method::POST, "/orders", &headers, body).await.unwrap();
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.body["requestId"], answer.header("x-request-id"));

    client.place_one().await;
    assert_eq!(service.probe("live").await, Some(200));
    let log = service.log();
    let panics: Vec<_> = log.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(panics.len(), 1, "{panics:?}");
    assert!(panics[0]["code.location"].as_str().unwrap().contains("orders.rs"), "{}", panics[0]);
    assert!(panics[0].to_string().contains(answer.header("x-request-id")), "{}", panics[0]);
    assert!(!log.iter().any(|line| line.to_string().contains("canary")), "{log:?}");
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

/// Holds: No request takes a connection of the work: there are two pools.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_hang_are_503_and_keep_no_order_from_being_placed_and_announced() {
    let world = World::new().await;
    // Whoever reads an order sleeps; whoever writes one does not notice.
    world.database.execute("ALTER TABLE orders RENAME TO orders_kept").await;
    let slow = "CREATE VIEW orders AS SELECT * FROM orders_kept WHERE pg_sleep(60) IS NOT NULL;
        GRANT SELECT, INSERT ON orders TO test_service";
    world.database.execute(slow).await;
    world.database.execute("GRANT ALL ON orders TO PUBLIC").await;
    // Three of them are for requests, of which one caller may have two.
    let service = world.setup().set("database.max_connections", 9).start().await;
    let client = Arc::new(world.client(&service));
    client.place_one().await;
    let mut readers = JoinSet::new();
    for _ in 0..30 {
        let client = Arc::clone(&client);
        readers.spawn(async move {
            loop {
                let answer = client.get("/orders").await;
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(!answer.header("retry-after").is_empty());
            }
        });
    }
    let reading = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND datname = current_database()";
    for _ in 0..5 {
        wait_until("reads hang", seconds(20), async || world.database.number(reading).await >= 2).await;
        for _ in 0..10 {
            client.place_one().await;
        }
        world.at_rest(seconds(20)).await;
    }
    assert_eq!(service.probe("ready").await, Some(200));
    assert!(readers.try_join_next().is_none(), "every read was answered 503");
    readers.abort_all();
    assert_eq!(service.stop().await, Some(0));
    world.database.execute("DROP VIEW orders").await;
    world.database.execute("ALTER TABLE orders_kept RENAME TO orders").await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_reads_are_slow_waits_for_them_and_nobody_else_does() {
    let world = World::new().await;
    // Whoever reads an order of one customer sleeps, for as long as a statement of a request may run.
    world.database.execute("ALTER TABLE orders RENAME TO orders_kept").await;
    let slow = "CREATE VIEW orders AS SELECT * FROM orders_kept
        WHERE customer_ref <> 'slow' OR pg_sleep(60) IS NOT NULL;
        GRANT ALL ON orders TO PUBLIC";
    world.database.execute(slow).await;
    let signer = Signer::eddsa("main");
    let service = world.setup().trusting(&signer).start().await;
    let [greedy, other] =
        ["greedy", "other"].map(|subject| world.client(&service).bearing(signer.token(json!({"sub": subject}))));
    assert_eq!(other.place_under("k", &order_body("slow")).await.unwrap().status, 201);
    let mut readers = JoinSet::new();
    for _ in 0..24 {
        let greedy = greedy.clone();
        readers.spawn(async move {
            loop {
                let answer = greedy.get("/orders/customer/slow").await;
                assert_eq!(answer.status, 503, "{answer:?}");
                assert!(!answer.header("retry-after").is_empty());
            }
        });
    }
    let reading = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND datname = current_database()";
    wait_until("it has its share", seconds(20), async || world.database.number(reading).await >= 4).await;
    for _ in 0..50 {
        assert_eq!(other.get("/orders/customer/quick").await.status, 200);
    }
    assert!(readers.try_join_next().is_none(), "every slow read was answered 503");
    readers.abort_all();
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.database.execute("DROP VIEW orders").await;
    world.database.execute("ALTER TABLE orders_kept RENAME TO orders").await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_many_orders_take_too_long_for_those_who_wait_fewer_are_placed_at_once() {
    let world = World::new().await;
    let service = world.setup().set("placement.tasks", 1).start().await;
    // A little longer than a caller waits.
    let slow = "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT count(*) FROM made) > 4 THEN PERFORM pg_sleep(2.6); END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER be_slow AFTER INSERT ON orders REFERENCING NEW TABLE AS made
        FOR EACH STATEMENT EXECUTE FUNCTION be_slow()";
    world.database.execute(slow).await;
    let placed = async || world.history.acknowledged().len() >= 30;
    world.client(&service).load_during(12, wait_until("orders are answered", seconds(40), placed)).await;
    world.database.execute("DROP TRIGGER be_slow ON orders").await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

//! Orders that are completed and cancelled.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::{Proxy, wait_until};
use tokio::task::JoinSet;

use crate::world::{World, seconds};

const CHANGES: [(&str, &str, &str, &str); 2] =
    [("complete", "cancel", "Fulfilled", "ORDER_COMPLETED"), ("cancel", "complete", "Cancelled", "ORDER_CANCELLED")];

#[tokio::test]
async fn an_order_ends_once_and_its_end_is_announced_with_the_next_version() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (change, opposite, status, code) in CHANGES {
        let order = client.place().await.unwrap().body;
        let order_ref = order["orderRef"].as_str().unwrap();
        let path = format!("/orders/{}/{change}", order_ref.to_lowercase());
        let headers = [("traceparent", parent), ("tracestate", "vendor=1")];
        let changed = client.ask(reqwest::Method::POST, &path, &headers, Vec::new()).await.unwrap();
        let mut expected = order.clone();
        expected["statusName"] = json!(status);
        assert_eq!((changed.status, &changed.body), (200, &expected));
        let repeated = client.change(order_ref, change).await.unwrap();
        assert_eq!((repeated.status, &repeated.body), (200, &expected), "repeating it changes nothing");
        assert_eq!(client.change(order_ref, opposite).await.unwrap().status, 409);
        assert_eq!(client.get(&format!("/orders/{order_ref}")).await.body, expected);
        let of_status = client.list(&format!("/orders?status={status}")).await;
        assert_eq!(of_status.iter().map(|order| &order["orderRef"]).collect::<Vec<_>>(), [order_ref]);

        world.at_rest(seconds(20)).await;
        let messages = world.topic.dump().await;
        let of_order: Vec<_> = messages.iter().filter(|one| one.key.as_deref() == Some(order_ref.as_bytes())).collect();
        assert_eq!(of_order.len(), 2);
        assert_eq!(of_order[0].partition, of_order[1].partition);
        let value: Value = serde_json::from_slice(of_order[1].value.as_deref().unwrap()).unwrap();
        let (message_ref, at) = (value["messageRef"].as_str().unwrap(), value["activityAt"].as_str().unwrap());
        assert_eq!(
            value,
            json!({"messageRef": message_ref, "activityTypeCode": code, "activityAt": at, "orderRef": order_ref,
                "orderVersion": 2})
        );
        assert!(at > order["placedAt"].as_str().unwrap(), "the time of the change, not of the order");
        let headers: Vec<_> =
            of_order[1].headers.iter().map(|(name, _)| (name.as_str(), of_order[1].header(name))).collect();
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", message_ref),
            ("ce_type", &format!("summarisation.{code}.v1")),
            ("ce_source", "/order-service"),
            ("ce_time", at),
            ("content-type", "application/json"),
            ("traceparent", parent),
            ("tracestate", "vendor=1"),
        ];
        assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())));
    }
    assert_eq!(client.list("/orders?status=New").await.len(), 0);
    world.judge().await;
}

#[tokio::test]
async fn what_is_no_order_cannot_be_changed() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for (change, ..) in CHANGES {
        for order in ["OS999999999-ORD", "OS000000-ORD", "nothing", "OS99999999999999999999-ORD"] {
            assert_eq!(client.change(order, change).await.unwrap().status, 404, "{order}");
        }
        assert_eq!(client.change("OS000001-ORD", &format!("{change}?force=true")).await.unwrap().status, 400);
        let get = client.get(&format!("/orders/OS000001-ORD/{change}")).await;
        assert_eq!((get.status, get.header("allow")), (405, "POST"));
    }
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_opposite_changes_at_once_on_two_instances_one_wins_and_one_message_tells_of_it() {
    let world = World::new().await;
    // Changes overflow the queue too.
    let setup = world.setup().set("publisher.queue_capacity", 4);
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    client.route_to([one.api(), other.api()]);
    for _ in 0..20 {
        let order = client.place_one().await;
        let mut changes = JoinSet::new();
        for number in 0..8 {
            let (client, order) = (client.clone(), order.clone());
            let change = ["complete", "cancel"][number / 2 % 2];
            changes.spawn(async move { (change, client.change(&order, change).await.unwrap().status) });
        }
        let mut answers = changes.join_all().await;
        answers.sort_unstable();
        let won = if answers[0].1 == 200 { "cancel" } else { "complete" };
        assert!(
            answers.iter().all(|(change, status)| *status == if *change == won { 200 } else { 409 }),
            "{answers:?}"
        );
    }
    world.at_rest(seconds(20)).await;
    assert_eq!(world.count("published").await, 40);
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_has_to_wait_holds_up_neither_orders_nor_changes_of_others() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let (locked, free) = (client.place_one().await, client.place_one().await);
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM orders WHERE order_ref(order_id) = $1 FOR UPDATE")
        .bind(&locked)
        .execute(&mut *lock)
        .await
        .unwrap();
    let waiting = {
        let (client, locked) = (client.clone(), locked.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            (client.change(&locked, "complete").await.unwrap(), begun.elapsed())
        })
    };
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    wait_until("it waits", seconds(10), async || world.database.number(waits).await > 0).await;
    assert_eq!(client.change(&free, "cancel").await.unwrap().status, 200);
    client.load(20, 4).await;
    assert_eq!(world.history.others(), [].into());
    let (answer, took) = waiting.await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(took < seconds(3) + Duration::from_millis(100), "it took {took:?}");
    lock.rollback().await.unwrap();
    wait_until("it is changed all the same", seconds(20), async || {
        client.get(&format!("/orders/{locked}")).await.body["statusName"] == "Fulfilled"
    })
    .await;
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn with_postgres_silent_a_change_is_503_within_3_s_and_is_made_once_in_the_end() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    let order = client.place_one().await;
    proxy.hold();
    let begun = Instant::now();
    assert_eq!(client.change(&order, "cancel").await.unwrap().status, 503);
    let took = begun.elapsed();
    assert!(took < seconds(3) + Duration::from_millis(100), "it took {took:?}");
    proxy.pass();
    wait_until("it is cancelled", seconds(30), async || client.change(&order, "cancel").await.unwrap().status == 200)
        .await;
    world.at_rest(seconds(30)).await;
    assert_eq!(world.count("published").await, 2);
    world.judge().await;
}

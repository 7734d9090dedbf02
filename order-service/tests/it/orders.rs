use serde_json::json;
use testing::order_body;
use uuid::Uuid;

use crate::world::{World, seconds};

#[tokio::test]
async fn an_order_is_placed_read_and_announced_with_the_same_words() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);

    let placed = client.place().await.unwrap();
    let order = placed.body.clone();
    let order_ref = order["orderRef"].as_str().unwrap();
    assert_eq!(order_ref, "OS000001-ORD");
    assert_eq!(placed.header("location"), format!("/orders/{order_ref}"));
    assert_eq!((&order["statusName"], &order["numberOfItems"]), (&json!("New"), &json!(2)));
    assert!(order["placedAt"].as_str().unwrap().ends_with('Z'), "{order}");
    assert!(!placed.header("x-request-id").is_empty());
    for path in [placed.header("location").to_owned(), "/orders/os000001-ord".into()] {
        assert_eq!(client.get(&path).await.body, order, "{path}");
    }

    world.at_rest(seconds(5)).await;
    let messages = world.topic.dump().await;
    assert_eq!(messages.len(), 1);
    let value: serde_json::Value = serde_json::from_slice(messages[0].value.as_deref().unwrap()).unwrap();
    let message_ref: Uuid = value["messageRef"].as_str().unwrap().parse().unwrap();
    assert_eq!(message_ref.get_version_num(), 7);
    let placed_at = value["activityAt"].as_str().unwrap();
    assert_eq!(
        value,
        json!({"messageRef": message_ref, "activityTypeCode": "ORDER_CREATED", "activityAt": placed_at,
            "orderRef": order_ref, "orderVersion": 1})
    );
    let headers: Vec<_> =
        messages[0].headers.iter().map(|(name, _)| (name.as_str(), messages[0].header(name))).collect();
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", &message_ref.to_string()),
        ("ce_type", "summarisation.ORDER_CREATED.v1"),
        ("ce_source", "/order-service"),
        ("ce_time", placed_at),
        ("content-type", "application/json"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name, value.to_owned())));
    world.judge().await;
}

#[tokio::test]
async fn the_trace_of_the_request_travels_with_the_message() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers =
        [("content-type", "application/json"), ("traceparent", parent), ("tracestate", "vendor=1,other=\"2\"")];
    let body = serde_json::to_vec(&order_body("traced")).unwrap();
    let placed = client.ask(reqwest::Method::POST, "/orders", &headers, body).await.unwrap();
    assert_eq!(placed.status, 201);
    world.history.add(placed.body["orderRef"].as_str().unwrap(), "traced");

    world.at_rest(seconds(5)).await;
    let messages = world.topic.dump().await;
    assert_eq!(messages[0].header("traceparent"), parent);
    assert_eq!(messages[0].header("tracestate"), "vendor=1,other=\"2\"");
    world.judge().await;
}

#[tokio::test]
async fn the_longest_order_and_the_longest_customer_are_taken() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    // 64 characters are counted, not bytes; blanks at either end are not.
    let customer = "ü\u{1F600}".repeat(32);
    let items: Vec<_> = (0..200).map(|n| json!({"productId": Uuid::now_v7(), "quantity": 1_000_000 - n})).collect();
    let body = json!({"customerRef": format!("  {customer} "), "orderItems": items});
    let placed = client.post("/orders", &body).await.unwrap();
    assert_eq!(placed.status, 201, "{placed:?}");
    assert_eq!(placed.body["customerRef"], customer);
    assert_eq!(placed.body["orderItems"], body["orderItems"]);
    world.history.add("OS000001-ORD", &customer);
    let found = client.get("/orders/OS000001-ORD").await;
    assert_eq!(found.body, placed.body);
    world.at_rest(seconds(5)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_reasonable_request_id_is_kept_and_another_replaced() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let long = "x".repeat(128);
    for (given, kept) in [("a.B_c-9", true), (&long, true), (&format!("{long}x"), false), ("a b", false), ("", false)] {
        for path in ["/orders", "/nowhere"] {
            let answer = client.ask(reqwest::Method::GET, path, &[("x-request-id", given)], Vec::new()).await.unwrap();
            assert_eq!(answer.header("x-request-id") == given, kept, "{given}");
            assert!(!answer.header("x-request-id").is_empty());
            if path == "/nowhere" {
                assert_eq!(answer.body["requestId"], answer.header("x-request-id"));
            }
        }
    }
    world.judge_nothing_placed().await;
}

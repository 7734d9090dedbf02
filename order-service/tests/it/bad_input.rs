use reqwest::Method;
use serde_json::{Value, json};
use testing::{Answer, Client, Proxy, order_body};

use crate::world::{World, seconds};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const PRODUCT: &str = "0192f0c1-7a5e-7c3a-9d2b-3f4e5a6b7c8d";

async fn post(client: &Client, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    client.ask(Method::POST, "/orders", headers, body.into()).await.unwrap()
}

/// The answer is a complete problem of this status.
fn is_problem(answer: &Answer, status: u16, path: &str) {
    assert_eq!(answer.status, status, "{path}: {answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
    let problem = &answer.body;
    assert_eq!(problem["status"], status);
    assert_eq!(problem["instance"], path.split('?').next().unwrap());
    assert_eq!(problem["requestId"], answer.header("x-request-id"));
    for text in ["type", "title", "detail"] {
        assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{path}: {problem}");
    }
    assert_eq!(problem.get("errors").is_some(), status == 422, "{path}: {problem}");
}

fn pointers(answer: &Answer) -> Vec<&str> {
    answer.body["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_body_that_is_not_json_is_400_and_nothing_is_written() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let cut = &serde_json::to_vec(&order_body("C-1")).unwrap()[..40];
    let bad: [&[u8]; 7] =
        [b"", b"{", cut, b"{\"customerRef\": \"\xff\"}", b"{} {}", b"nul", b"{\"customerRef\": 'C-1'}"];
    for body in bad {
        is_problem(&post(&client, JSON, body).await, 400, "/orders");
    }
    world.judge_nothing_placed().await;
}

/// Holds: No value of a request's body is in an error.
#[tokio::test]
async fn json_of_the_wrong_shape_is_422_and_names_the_place_but_not_the_value() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let item = json!({"productId": PRODUCT, "quantity": 1});
    let with_item = |item: Value| json!({"customerRef": "C-1", "orderItems": [item]});
    for (body, pointer) in [
        (json!([]), ""),
        (json!("canary"), ""),
        (json!(null), ""),
        (json!({"orderItems": [item]}), ""),
        (json!({"customerRef": "C-1"}), ""),
        (json!({"customerRef": 5, "orderItems": [item]}), "/customerRef"),
        (json!({"customerRef": null, "orderItems": [item]}), "/customerRef"),
        (json!({"customerRef": "C-1", "orderItems": {}}), "/orderItems"),
        (json!({"customerRef": "C-1", "orderItems": [5]}), "/orderItems/0"),
        (json!({"customerRef": "C-1", "orderItems": [item], "canary": 1}), "/canary"),
        (with_item(json!([PRODUCT, 1])), "/orderItems/0"),
        (with_item(json!({"productId": PRODUCT})), "/orderItems/0"),
        (with_item(json!({"productId": 7, "quantity": 1})), "/orderItems/0/productId"),
        (with_item(json!({"productId": PRODUCT, "quantity": "canary"})), "/orderItems/0/quantity"),
        (with_item(json!({"productId": PRODUCT, "quantity": 1.5})), "/orderItems/0/quantity"),
        (with_item(json!({"productId": PRODUCT, "quantity": 1, "price": 1})), "/orderItems/0/price"),
    ] {
        let answer = post(&client, JSON, body.to_string()).await;
        is_problem(&answer, 422, "/orders");
        assert_eq!(pointers(&answer), [pointer], "{body}: {}", answer.body);
        let details = answer.body["errors"][0]["detail"].as_str().unwrap();
        assert!(!details.contains("canary"), "{body}: {details}");
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn every_broken_rule_of_an_order_is_listed_at_once() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let item = |product: &str, quantity: i64| json!({"productId": product, "quantity": quantity});
    let order = |customer: &str, items: Vec<Value>| json!({"customerRef": customer, "orderItems": items});
    let good = item(PRODUCT, 1);
    let one = |customer: &str| order(customer, vec![good.clone()]);
    for (body, expected) in [
        (one(""), vec!["/customerRef"]),
        (one(" \t "), vec!["/customerRef"]),
        (one(&"x".repeat(65)), vec!["/customerRef"]),
        (one("C\u{7}1"), vec!["/customerRef"]),
        (one("C\u{0}1"), vec!["/customerRef"]),
        (order("C-1", vec![]), vec!["/orderItems"]),
        (order("C-1", vec![good.clone(); 201]), vec!["/orderItems"]),
        (
            order("", vec![item("no-uuid", 0), item(PRODUCT, 1 << 31), item(PRODUCT, -1), item(PRODUCT, 1_000_001)]),
            vec![
                "/customerRef",
                "/orderItems/0/productId",
                "/orderItems/0/quantity",
                "/orderItems/1/quantity",
                "/orderItems/2/quantity",
                "/orderItems/3/quantity",
            ],
        ),
        (order("C-1", vec![item(&PRODUCT.replace('-', ""), 1)]), vec!["/orderItems/0/productId"]),
    ] {
        let answer = post(&client, JSON, body.to_string()).await;
        is_problem(&answer, 422, "/orders");
        assert_eq!(pointers(&answer), expected, "{}", answer.body);
    }
    // More than the widest number there is.
    let huge =
        format!(r#"{{"customerRef":"C-1","orderItems":[{{"productId":"{PRODUCT}","quantity":{}}}]}}"#, "9".repeat(40));
    assert_eq!(pointers(&post(&client, JSON, huge).await), ["/orderItems/0/quantity"]);
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_another_content_type_415() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let mut body = serde_json::to_vec(&order_body("C-1")).unwrap();
    body.resize(64 * 1024 + 1, b' ');
    is_problem(&post(&client, JSON, body.clone()).await, 413, "/orders");
    for headers in [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/json-seq")]] {
        is_problem(&post(&client, headers, serde_json::to_vec(&order_body("C-1")).unwrap()).await, 415, "/orders");
    }
    assert_eq!(world.database.number("SELECT count(*) FROM orders").await, 0);
    body.pop();
    let placed = post(&client, &[("content-type", "application/json; charset=utf-8")], body).await;
    assert_eq!(placed.status, 201, "exactly 64 KiB fit: {placed:?}");
    world.history.add("OS000001-ORD", "C-1");
    world.at_rest(seconds(5)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_path_or_a_method_that_is_not_there_is_404_or_405() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for path in
        ["/order", "/orders/", "/orders/OS000001-ORD", "/orders/17", "/orders/%00", "/orders/OS000001-ORD/lines"]
    {
        is_problem(&client.get(path).await, 404, path);
    }
    for path in ["/orders/%ff", "/orders/%c3%28", "/orders/customer/%e2%82", "/orders/customer/%ed%a0%80"] {
        is_problem(&client.get(path).await, 400, path);
    }
    for (method, path, allow) in [
        (Method::DELETE, "/orders", "GET, POST"),
        (Method::PUT, "/orders", "GET, POST"),
        (Method::POST, "/orders/OS000001-ORD", "GET"),
        (Method::PATCH, "/orders/customer/C-1", "GET"),
        (Method::GET, "/orders/OS000001-ORD/complete", "POST"),
        (Method::DELETE, "/orders/OS000001-ORD/cancel", "POST"),
    ] {
        let answer = client.ask(method, path, JSON, b"{}".to_vec()).await.unwrap();
        is_problem(&answer, 405, path);
        assert_eq!(answer.header("allow"), allow);
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_query_that_does_not_parse_is_400_and_one_out_of_range_422() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for query in [
        "limit=many",
        "limit=",
        "limit=1.5",
        "cursor=",
        "cursor=x",
        "cursor=eyJ9",
        "status=new",
        "status=",
        "color=red",
        "limit=1&limit=2",
        "placedFrom=today",
        "placedFrom=2026-11-22",
        "placedBefore=2026-13-01T00:00:00Z",
        "limit=%ff",
    ] {
        for path in ["/orders", "/orders/customer/C-1"] {
            let path = format!("{path}?{query}");
            is_problem(&client.get(&path).await, 400, &path);
        }
    }
    is_problem(&client.get("/orders/customer/C-1?customerRef=C-1").await, 400, "/orders/customer/C-1");
    for limit in ["0", "201", "-1", "99999999999999999999"] {
        let answer = client.get(&format!("/orders?limit={limit}")).await;
        is_problem(&answer, 422, "/orders");
        assert_eq!(pointers(&answer), ["/limit"]);
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn without_the_database_every_route_answers_503_within_3_s() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    for break_it in [Proxy::refuse, Proxy::hold] {
        break_it(&proxy);
        for path in ["/orders", "/orders/OS000001-ORD", "/orders/customer/C-1"] {
            let begun = std::time::Instant::now();
            let answer = client.get(path).await;
            is_problem(&answer, 503, path);
            assert!(!answer.header("retry-after").is_empty());
            assert!(begun.elapsed() < seconds(3), "{path} took {:?}", begun.elapsed());
        }
        proxy.pass();
        testing::wait_until("it heals", seconds(5), async || client.get("/orders").await.status == 200).await;
    }
    world.judge_nothing_placed().await;
}

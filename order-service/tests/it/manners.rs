//! What HTTP clients of all kinds rely on.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::{Method, redirect::Policy};
use serde_json::{Value, json};
use testing::{Client, order_body};

use crate::world::{World, seconds};

async fn with_type(client: &Client, headers: &[(&str, &str)], body: &Value) -> u16 {
    let body = body.to_string().into_bytes();
    client.ask(Method::POST, "/orders", headers, body).await.unwrap().status
}

#[tokio::test]
async fn media_types_are_taken_in_any_case_and_nothing_that_is_encoded() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let empty = json!({"customerRef": "C-1", "orderItems": []});
    for kind in ["application/json", "Application/JSON", "APPLICATION/JSON; Charset=UTF-8"] {
        // It is read: there has to be a line.
        assert_eq!(with_type(&client, &[("content-type", kind)], &empty).await, 422, "{kind}");
        assert_eq!(with_type(&client, &[("content-type", kind), ("content-encoding", "identity")], &empty).await, 422);
        for encoding in ["gzip", "br", "x", "identity, gzip"] {
            let headers = [("content-type", kind), ("content-encoding", encoding)];
            assert_eq!(with_type(&client, &headers, &empty).await, 415, "{encoding}");
        }
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_whole_number_may_have_zeros_behind_a_point() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let order = |customer: &str, quantity: &str| {
        let product = "0192f0c1-7a5e-7000-8000-000000000001";
        let line = format!(r#"{{"productId":"{product}","quantity":{quantity}}}"#);
        format!(r#"{{"customerRef":"{customer}","orderItems":[{line}]}}"#).into_bytes()
    };
    let json = [("content-type", "application/json")];
    for (written, read) in [("2.0", 2), ("2e0", 2), ("20.00e-1", 2), ("1E6", 1_000_000)] {
        let answer = client.ask(Method::POST, "/orders", &json, order(written, written)).await.unwrap();
        assert_eq!((answer.status, &answer.body["orderItems"][0]["quantity"]), (201, &json!(read)), "{written}");
        world.history.add(answer.body["orderRef"].as_str().unwrap(), written);
    }
    for wrong in ["2.5", "1e7", "-1.0", "0.0", "1e300", "9223372036854775808", "-9223372036854775809"] {
        let answer = client.ask(Method::POST, "/orders", &json, order("C-1", wrong)).await.unwrap();
        let told = (answer.status, answer.body["errors"][0]["pointer"].as_str());
        assert_eq!(told, (422, Some("/orderItems/0/quantity")), "{wrong}: {answer:?}");
    }
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_page_leads_to_the_next_whatever_path_leads_here_and_is_small_where_the_caller_reads_gzip() {
    let world = World::new().await;
    world.left_behind(60, 900).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let first = client.get("/orders?limit=20&status=New").await;
    let cursor = first.header("x-next-cursor").to_owned();
    assert_eq!(first.header("link"), format!("<?limit=20&status=New&cursor={cursor}>; rel=\"next\""));
    assert_eq!(client.list("/orders?limit=7").await.len(), 60);
    let last = client.get(&format!("/orders?limit=200&status=New&cursor={cursor}")).await;
    assert_eq!((last.header("link"), last.header("x-next-cursor")), ("", ""));

    let plain = client.get("/orders?limit=60").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "accept-encoding"));
    let packed = client.ask(Method::GET, "/orders?limit=60", &[("accept-encoding", "br, gzip")], Vec::new()).await;
    let packed = packed.unwrap();
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "accept-encoding"));
    assert!(packed.bytes.len() * 4 < plain.bytes.len(), "{} of {}", packed.bytes.len(), plain.bytes.len());
    let mut read = Vec::new();
    GzDecoder::new(packed.bytes.as_slice()).read_to_end(&mut read).unwrap();
    assert_eq!(read, plain.bytes);
    let short = client.ask(Method::GET, "/orders?limit=1", &[("accept-encoding", "gzip")], Vec::new()).await.unwrap();
    assert_eq!((short.header("content-encoding"), short.header("vary")), ("", ""), "not worth it");

    let mut order = order_body("C-1");
    let line = order["orderItems"][0].clone();
    order["orderItems"] = std::iter::repeat_n(line, 50).collect();
    let headers = [("accept-encoding", "gzip"), ("content-type", "application/json")];
    let placed = client.ask(Method::POST, "/orders", &headers, order.to_string().into_bytes()).await.unwrap();
    assert_eq!((placed.status, placed.header("content-encoding"), placed.header("etag")), (201, "gzip", ""));
    let mut read = Vec::new();
    GzDecoder::new(placed.bytes.as_slice()).read_to_end(&mut read).unwrap();
    let read: Value = serde_json::from_slice(&read).unwrap();
    world.history.add(read["orderRef"].as_str().unwrap(), "C-1");

    let script = "/docs/swagger-ui-bundle.js";
    let large = client.ask(Method::GET, script, &[("accept-encoding", "gzip")], Vec::new()).await.unwrap();
    assert!(large.header("content-encoding") == "gzip" && large.bytes.len() * 2 < client.get(script).await.bytes.len());

    let metrics = reqwest::Client::new().get(format!("{}/metrics", service.management()));
    let metrics = metrics.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(metrics.headers()["content-encoding"], "gzip");
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn the_documents_are_sent_once_and_found_from_the_root() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for path in ["/openapi.json", "/docs/", "/docs/swagger-ui.css"] {
        let first = client.get(path).await;
        let tag = first.header("etag").to_owned();
        assert!(
            first.status == 200 && tag.starts_with("W/\"") && first.header("cache-control") == "no-cache",
            "{path}"
        );
        let strong = tag.trim_start_matches("W/").to_owned();
        for known in [tag.as_str(), strong.as_str(), "*", &format!("\"x\", {tag}")] {
            let again = client.ask(Method::GET, path, &[("if-none-match", known)], Vec::new()).await.unwrap();
            assert_eq!((again.status, again.bytes.len(), again.header("etag")), (304, 0, tag.as_str()), "{path}");
            assert_eq!(again.header("cache-control"), "no-cache");
        }
        let other = client.ask(Method::GET, path, &[("if-none-match", "\"x\"")], Vec::new()).await.unwrap();
        assert_eq!(other.bytes, first.bytes);
    }
    let orders = client.ask(Method::GET, "/orders", &[("if-none-match", "*")], Vec::new()).await.unwrap();
    assert_eq!((orders.status, orders.header("etag")), (200, ""), "orders are not to be kept");
    let browser = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let bare = world.setup().set("pages.enabled", false).start().await;
    for (service, to) in [(&service, "operations"), (&bare, "docs/")] {
        let root = browser.get(format!("{}/", service.api())).send().await.unwrap();
        assert_eq!((root.status().as_u16(), root.headers()["location"].to_str().unwrap()), (307, to));
    }
    for probe in ["live", "ready", "startup"] {
        let url = format!("{}/health/{probe}", service.management());
        let options = browser.request(Method::OPTIONS, &url).send().await.unwrap();
        assert_eq!(
            (options.status().as_u16(), &options.headers()["allow"]),
            (200, &"GET, HEAD, OPTIONS".parse().unwrap())
        );
        assert_eq!(browser.post(&url).send().await.unwrap().status(), 405);
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn the_trace_of_a_caller_with_a_later_version_and_several_lists_goes_along() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"),
        ("tracestate", "vendor=1"),
        ("tracestate", "other=2"),
    ];
    let body = serde_json::to_vec(&order_body("C-1")).unwrap();
    let placed = client.ask(Method::POST, "/orders", &headers, body).await.unwrap();
    world.history.add(placed.body["orderRef"].as_str().unwrap(), "C-1");
    world.at_rest(seconds(20)).await;
    let messages = world.topic.dump().await;
    assert_eq!(messages[0].header("traceparent"), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(messages[0].header("tracestate"), "vendor=1,other=2");
    world.judge().await;
}

//! What the page of somebody else could do with the browser of a reader who reaches the service.

use serde_json::{Value, json};
use testing::{Raw, RawAnswer, Signer, wait_until};

use crate::world::{World, seconds};

async fn ask(at: &str, head: &str, headers: &str) -> RawAnswer {
    let mut caller = Raw::connect(at).await;
    caller.send(format!("{head} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n\r\n").as_bytes()).await;
    RawAnswer::all(&caller.rest().await).remove(0)
}

#[tokio::test]
async fn a_form_on_another_page_cancels_no_order() {
    let world = World::new().await;
    let service = world.setup().set("http.public_url", "https://shop.example/api/").start().await;
    let client = world.client(&service);
    let order = client.place_one().await;
    let cancel = format!("POST /orders/{order}/cancel");
    for headers in [
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nOrigin: https://evil.example",
        "Host: localhost\r\nSec-Fetch-Site: cross-site",
        "Host: localhost\r\nOrigin: https://evil.example\r\nContent-Type: text/plain",
        "Host: localhost\r\nOrigin: null",
    ] {
        let refused = ask(&service.api(), &cancel, headers).await;
        refused.is_problem();
        assert_eq!(refused.status, 403, "{headers}");
    }
    assert_eq!(client.get(&format!("/orders/{order}")).await.body["statusName"], "New");
    let own = "Host: localhost:8080\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://localhost:8080";
    for headers in [own, "Host: localhost\r\nOrigin: https://shop.example"] {
        assert_eq!(ask(&service.api(), &cancel, headers).await.status, 200, "{headers}");
    }
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_name_of_somebody_else_leads_nowhere_where_no_token_is_asked_for() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let open = world.setup().set("http.allowed_hosts", "orders.example").start().await;
    for (host, status) in [
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("", 403),
        ("127.0.0.1.evil.example", 403),
        ("orders.example:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("localhost:8080", 200),
        ("order-service", 200),
    ] {
        let answer = ask(&open.api(), "GET /orders", &format!("Host: {host}")).await;
        assert_eq!(answer.status, status, "{host}: {answer:?}");
    }
    let closed = world.setup().trusting(&signer).set("management.allowed_hosts", "orders.svc").start().await;
    let bearing = format!("Host: evil.example\r\nAuthorization: Bearer {}", signer.token(json!({})));
    assert_eq!(ask(&closed.api(), "GET /orders", &bearing).await.status, 200, "no page has a token");
    for path in ["GET /health/live", "GET /metrics", "PUT /log-level"] {
        let refused = ask(&closed.management(), path, "Host: evil.example").await;
        refused.is_problem();
        assert_eq!(refused.status, 403, "{path}");
    }
    for host in ["orders.svc:9080", "10.1.2.3:9080", "localhost"] {
        assert_eq!(ask(&closed.management(), "GET /metrics", &format!("Host: {host}")).await.status, 200, "{host}");
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn the_level_of_the_log_wants_a_token_where_the_setting_says_so() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let service = world.setup().trusting(&signer).set("management.require_token", true).start().await;
    let body = r#"{"level":"debug"}"#;
    let change = async |authorization: &str| {
        let head = format!(
            "PUT /log-level HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n{authorization}\r\n{body}",
            body.len()
        );
        let mut caller = Raw::connect(&service.management()).await;
        caller.send(head.as_bytes()).await;
        RawAnswer::all(&caller.rest().await).remove(0)
    };
    let bearing = |claims: Value| format!("Authorization: Bearer {}\r\n", signer.token(claims));
    assert_eq!(change("").await.status, 401);
    let lacking = change(&bearing(json!({"scope": "orders:write"}))).await;
    assert_eq!(lacking.status, 403);
    assert_eq!(lacking.header("www-authenticate"), r#"Bearer error="insufficient_scope", scope="operations""#);
    assert_eq!(change(&bearing(json!({"customerRef": "C-1"}))).await.status, 403, "a customer is no operator");
    assert_eq!(change(&bearing(json!({}))).await.status, 200);
    assert_eq!(service.probe("ready").await, Some(200), "probes need none");
    let client = world.client(&service).bearing(signer.token(json!({})));
    wait_until("the audit has it", seconds(10), async || client.list("/admin/audit").await.len() == 1).await;
    assert_eq!(client.list("/admin/audit").await[0]["via"], "management");
    let told = world.setup().set("management.require_token", true).run(&["config"]).await;
    let told = String::from_utf8(told.stderr).unwrap();
    assert!(told.starts_with("management.require_token: ") && told.lines().count() == 1, "{told}");
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn what_a_page_of_an_allowed_origin_may_send_is_a_setting() {
    let world = World::new().await;
    let origin = world.setup().set("http.cors.allowed_origins", "https://shop.example");
    let usual = origin.start().await;
    let own = origin.set("http.cors.allowed_headers", "authorization,x-own").start().await;
    for (service, header, status) in
        [(&usual, "baggage,b3,traceparent", 200), (&usual, "x-own", 400), (&own, "x-own", 200), (&own, "baggage", 400)]
    {
        let headers = format!(
            "Host: x\r\nOrigin: https://shop.example\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: {header}"
        );
        assert_eq!(ask(&service.api(), "OPTIONS /orders", &headers).await.status, status, "{header}");
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn behind_a_proxy_locations_are_those_of_the_proxy() {
    let world = World::new().await;
    let service = world.setup().set("http.public_url", "https://shop.example/api/").start().await;
    let client = world.client(&service);
    let placed = client.post("/orders", &testing::order_body("C-1")).await.unwrap();
    let order = placed.body["orderRef"].as_str().unwrap();
    assert_eq!(placed.header("location"), format!("https://shop.example/api/orders/{order}"));
    world.history.add(order, "C-1");
    for wrong in [
        "shop.example",
        "ftp://shop.example",
        "https://shop.example/?a=b",
        "https://",
        "https://a b/",
        "https://clerk:x@shop.example",
    ] {
        let told = world.setup().set("http.public_url", wrong).run(&["config"]).await;
        assert!(String::from_utf8(told.stderr).unwrap().starts_with("http.public_url: "), "{wrong}");
    }
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

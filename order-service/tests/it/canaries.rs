use reqwest::Method;
use testing::{CANARY, Errand, Proxy, Raw, RawAnswer, headers_of_all_kinds, told, wait_until};

use crate::world::{World, seconds};

fn errands() -> Vec<Errand> {
    let post = |body: String| Errand::new(Method::POST, "/orders").json(body);
    let item = format!(r#"{{"productId":"{CANARY}","quantity":"{CANARY}"}}"#);
    let mut errands = vec![
        post(format!(r#"{{"customerRef":"{CANARY}"#)),
        post(CANARY.into()),
        post(format!(r#""{CANARY}""#)),
        post(format!(r#"["{CANARY}"]"#)),
        // The pointer names a field that is not known; its value is nobody's business.
        post(format!(r#"{{"customerRef":"C","orderItems":[],"more":"{CANARY}"}}"#)),
        post(format!(r#"{{"customerRef":{{"{CANARY}":"{CANARY}"}},"orderItems":[]}}"#)),
        post(format!(r#"{{"customerRef":"C","orderItems":"{CANARY}"}}"#)),
        post(format!(r#"{{"customerRef":"C","orderItems":[{item}]}}"#)),
        post(format!(r#"{{"customerRef":"C","orderItems":[{{"productId":"{CANARY}","quantity":0}}]}}"#)),
        post(format!(r#"{{"customerRef":"{}","orderItems":[]}}"#, CANARY.repeat(7))),
        post(format!(r#"{{"customerRef":"{CANARY}\u0007","orderItems":[]}}"#)),
        post(CANARY.repeat(7_000)),
        Errand::new(Method::POST, "/orders").json(format!("{CANARY}\u{0}")).header("content-type", "text/plain"),
        Errand::new(Method::DELETE, "/orders").json(CANARY),
        Errand::new(Method::POST, "/nothing").json(CANARY),
        Errand::new(Method::POST, format!("/orders?{CANARY}={CANARY}")).json("{}"),
        Errand::new(Method::GET, format!("/orders/OS000001-ORD?token={CANARY}")),
        Errand::new(Method::GET, format!("/nothing?token={CANARY}")),
    ];
    for list in ["/orders", "/orders/customer/C-1", "/admin/messages"] {
        for query in ["limit", "cursor", "status", "state", "placedFrom", "placedBefore", CANARY] {
            errands.push(Errand::new(Method::GET, format!("{list}?{query}={CANARY}")));
        }
        errands.push(Errand::new(Method::GET, format!("{list}?limit=1&limit={CANARY}")));
        errands.push(Errand::new(Method::GET, format!("{list}?limit=%ff{CANARY}")));
    }
    errands.extend(headers_of_all_kinds());
    errands
}

/// Holds: Nothing that a caller sends and no secret is in errors, logs or metrics of order-service, at level debug
/// too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sent_or_secret_comes_back_in_errors_logs_or_metrics() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let url = world.database.url_through(proxy.port()).replacen("postgres@", &format!("postgres:{CANARY}@"), 1);
    let setup = world.setup().set("database.url", url).set("kafka.properties.sasl.password", CANARY);
    let service = setup.set("log.level", "debug").start().await;
    let client = world.client(&service);
    for errand in errands() {
        errand.run(&client).await;
    }
    for bytes in [
        format!("GET /orders HTTP/1.1\r\nHost: {CANARY}\r\nHost: {CANARY}\r\n\r\n"),
        format!("GET /orders HTTP/1.1\r\nHost: x\r\nContent-Length: {CANARY}\r\n\r\n"),
        format!("GET /orders HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {CANARY}\r\n\r\n"),
        format!("GET /orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}\0\r\n\r\n"),
        format!("{CANARY} {CANARY}\r\n\r\n"),
        format!("GET /orders HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n", CANARY.repeat(15_000)),
        // Too slow: what has come by then is not told either.
        format!(
            "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{CANARY}"
        ),
        format!("GET /orders HTTP/1.1\r\nHost: x\r\nX-A: {CANARY}"),
    ] {
        let mut caller = Raw::connect(&service.api()).await;
        caller.send(bytes.as_bytes()).await;
        let answered = caller.rest().await;
        assert!(!String::from_utf8_lossy(&answered).contains(CANARY), "{bytes}");
        RawAnswer::all(&answered).iter().for_each(RawAnswer::is_problem);
    }
    proxy.refuse();
    wait_until("the pool has noticed", seconds(20), async || client.get("/orders").await.status == 503).await;
    let order = serde_json::to_vec(&testing::order_body(CANARY)).unwrap();
    Errand::new(Method::POST, "/orders").json(order).run(&client).await;
    Errand::new(Method::GET, "/orders?limit=5").header("cookie", CANARY).run(&client).await;
    Errand::new(Method::GET, "/orders/OS000001-ORD").header("authorization", CANARY).run(&client).await;
    assert_eq!(told(&service).await, Vec::<String>::new());
    proxy.pass();
    service.kill().await;
    world.judge_nothing_placed().await;
}

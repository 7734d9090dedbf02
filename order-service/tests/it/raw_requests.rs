//! What is no proper request, byte by byte.

use testing::{Raw, RawAnswer};

use crate::world::{World, seconds};

/// Sends `bytes`, and whatever is answered until the service closes.
async fn exchange(api: &str, bytes: &[u8]) -> Vec<RawAnswer> {
    let mut caller = Raw::connect(api).await;
    caller.send(bytes).await;
    RawAnswer::all(&caller.rest().await)
}

fn get(rest: &str) -> Vec<u8> {
    format!("GET /orders HTTP/1.1\r\nHost: x\r\n{rest}\r\n\r\n").into_bytes()
}

fn post(rest: &str) -> Vec<u8> {
    format!("POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n{rest}")
        .into_bytes()
}

#[tokio::test]
async fn what_cannot_be_read_as_a_request_is_a_problem_and_the_end_of_the_connection() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let long = "x".repeat(140 * 1024);
    let many: String = (0..200).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    let unreadable: Vec<Vec<u8>> = [
        // request lines
        "GET\r\n\r\n",
        "GET /orders\r\n\r\n",
        "GET /orders HTTP/9.9\r\nHost: x\r\n\r\n",
        "GET /orders HTTP/1.1 x\r\nHost: x\r\n\r\n",
        "GET /or ders HTTP/1.1\r\nHost: x\r\n\r\n",
        "G(T /orders HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        &format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"),
        // hosts
        "GET /orders HTTP/1.1\r\n\r\n",
        "GET /orders HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([tls.to_vec()])
    .chain(
        [
            "no colon",
            ": no name",
            "X-A : space",
            "X-A: folded\r\n line",
            "X-A: \0",
            "X A: 1",
            &many,
            &format!("X-A: {long}"),
            // lengths that nobody can rely on
            "Content-Length: -1",
            "Content-Length: +5",
            "Content-Length: five",
            "Content-Length: 5, 5",
            "Content-Length: 99999999999999999999",
            "Content-Length:",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            "Transfer-Encoding : chunked",
        ]
        .into_iter()
        .map(get),
    )
    .collect();
    for bytes in &unreadable {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        let answers = exchange(&service.api(), bytes).await;
        assert!(answers.len() <= 1, "{shown}: {answers:?}");
        for answer in answers {
            assert!([400, 431].contains(&answer.status), "{shown}: {answer:?}");
            answer.is_problem();
        }
    }
    let long_head = exchange(&service.api(), &get(&format!("X-A: {long}"))).await;
    assert_eq!(long_head.iter().map(|answer| answer.status).collect::<Vec<_>>(), [431]);
    let long_token = exchange(&service.api(), &get(&format!("authorization: Bearer {long}"))).await;
    assert_eq!(long_token.iter().map(|answer| answer.status).collect::<Vec<_>>(), [401]);
    assert_eq!(long_token[0].header("www-authenticate"), "Bearer");
    for answer in [&long_head[0], &long_token[0]] {
        answer.is_problem();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["instance"], "/orders");
    }
    world.judge_nothing_placed().await;
}

/// Holds: No request is seen in another one's bytes.
#[tokio::test]
async fn a_request_hidden_in_another_is_never_answered() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let body = serde_json::to_string(&testing::order_body("C-1")).unwrap();
    let hidden = String::from_utf8(post(&format!("Content-Length: {}\r\n\r\n{body}", body.len()))).unwrap();
    let hidden = hidden.as_str();
    for shape in [
        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n1;a=\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    ] {
        let bytes = [post(shape), hidden.as_bytes().to_vec()].concat();
        for answer in exchange(&service.api(), &bytes).await {
            assert_eq!(answer.status, 400, "{shape:?}: {answer:?}");
            answer.is_problem();
        }
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn what_is_a_request_but_not_of_this_api_is_a_problem_of_its_own() {
    let world = World::new().await;
    let service = world.setup().start().await;
    for (status, head) in [
        (404, "OPTIONS * HTTP/1.1"),
        (405, "OPTIONS /orders HTTP/1.1"),
        (405, "TRACE /orders HTTP/1.1"),
        (405, "get /orders HTTP/1.1"),
        (405, "BREW /orders HTTP/1.1"),
        (404, "CONNECT x:80 HTTP/1.1"),
        (404, "GET /../orders HTTP/1.1"),
        (404, "GET //orders HTTP/1.1"),
        (404, "GET http://elsewhere/nothing HTTP/1.1"),
        (404, "GET /nothing HTTP/1.0"),
    ] {
        let bytes = format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answers = exchange(&service.api(), bytes.as_bytes()).await;
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [status], "{head}");
        answers[0].is_problem();
    }
    for more in
        ["Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: h2c\r\nConnection: Upgrade, close, HTTP2-Settings"]
    {
        let mut caller = Raw::connect(&service.api()).await;
        caller.send(format!("GET /nothing HTTP/1.1\r\nHost: x\r\n{more}\r\n\r\n").as_bytes()).await;
        caller.finish().await;
        let answers = RawAnswer::all(&caller.rest().await);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [404], "{more}");
    }
    // A body that is cut off, and one that comes to a path that reads none.
    for (status, request) in [
        (400, post("Content-Length: 500\r\n\r\n{\"customerRef\"")),
        (404, b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n{".to_vec()),
        (404, b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n".to_vec()),
    ] {
        let mut caller = Raw::connect(&service.api()).await;
        caller.send(&request).await;
        caller.finish().await;
        let answers = RawAnswer::all(&caller.rest().await);
        assert_eq!(answers[0].status, status, "{answers:?}");
        answers[0].is_problem();
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let mut caller = Raw::connect(&service.api()).await;
    let ahead: String = (0..100).map(|n| format!("GET /orders/{n} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    caller.send(ahead.as_bytes()).await;
    caller.finish().await;
    let answers = RawAnswer::all(&caller.rest().await);
    assert_eq!(answers.len(), 100);
    for (n, answer) in answers.iter().enumerate() {
        answer.is_problem();
        assert!(String::from_utf8_lossy(&answer.body).contains(&format!("\"/orders/{n}\"")), "{answer:?}");
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn json_is_read_to_any_depth_that_a_body_can_have() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let deep = |open: &str, close: &str, times: usize| open.repeat(times) + &close.repeat(times);
    let lists = deep("[", "]", 30_000);
    let objects = "{\"a\":".repeat(9_000) + "1" + &"}".repeat(9_000);
    for (status, body) in [
        (422, lists.clone()),
        (422, objects.clone()),
        (400, "[".repeat(60_000)),
        (422, format!("{{\"customerRef\":{lists},\"orderItems\":[]}}")),
        (422, format!("{{\"customerRef\":\"C\",\"orderItems\":{lists}}}")),
        (422, format!("{{\"customerRef\":\"C\",\"orderItems\":[{objects}]}}")),
        (422, format!("{{\"customerRef\":\"C\",\"orderItems\":[],\"more\":{lists}}}")),
    ] {
        let headers = [("content-type", "application/json")];
        let answer = client.ask(reqwest::Method::POST, "/orders", &headers, body.into_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
    }
    client.place_one().await;
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn head_is_answered_wherever_get_is_with_the_same_headers_and_no_body() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = reqwest::Client::new();
    let placed = world.client(&service).place_one().await;
    let own =
        [format!("/orders/{placed}"), "/orders".to_owned(), "/orders/OS999999-ORD".to_owned(), "/docs".to_owned()];
    let own = own.into_iter().map(|path| service.api() + &path);
    let managed = ["/health/live", "/health/ready", "/metrics"].map(|path| service.management() + path);
    for url in own.chain(managed) {
        let (get, head) = (client.get(&url).send().await.unwrap(), client.head(&url).send().await.unwrap());
        assert_eq!(head.status(), get.status(), "{url}");
        assert_eq!(head.headers().get("content-type"), get.headers().get("content-type"), "{url}");
        assert!(head.bytes().await.unwrap().is_empty(), "{url}");
    }
    // On a connection that goes on: a body would be taken for the next answer.
    let mut raw = Raw::connect(&service.api()).await;
    assert!(raw.send(b"HEAD /orders HTTP/1.1\r\nhost: it\r\n\r\nGET /orders/none HTTP/1.1\r\nhost: it\r\n\r\n").await);
    raw.finish().await;
    let all = String::from_utf8(raw.rest().await).unwrap();
    let (head, rest) = all.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && rest.starts_with("HTTP/1.1 404"), "{all}");
    world.at_rest(seconds(10)).await;
    world.judge().await;
}

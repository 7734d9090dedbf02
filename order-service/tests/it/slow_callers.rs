//! Callers that take their time, many of them, and callers that are too many.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::json;
use testing::{Raw, RawAnswer, Signer, allow_files, wait_until};
use tokio::{task::JoinSet, time::sleep};

use crate::world::{World, seconds};

/// But for the end of its head.
const LARGEST: &str = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n";
const GET: &[u8] = b"GET /orders/x HTTP/1.1\r\nHost: x\r\n\r\n";

/// Sends `begun`, then a byte now and then until nobody takes it any more, and reads what was answered.
async fn dribble(api: String, begun: &'static [u8]) -> Vec<RawAnswer> {
    let mut caller = Raw::connect(&api).await;
    caller.send(begun).await;
    for _ in 0..40 {
        sleep(Duration::from_millis(500)).await;
        if !caller.send(b"a").await {
            break;
        }
    }
    RawAnswer::all(&caller.rest().await)
}

/// Holds: No connection is held for ever: each of its phases has a deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_callers_are_cut_and_nobody_else_notices() {
    allow_files(2_000);
    let world = World::new().await;
    world.left_behind(200, 900).await;
    let service = world.setup().set("http.keep_alive", "3s").start().await;
    let client = world.client(&service);
    client.load(20, 4).await;
    world.at_rest(seconds(20)).await;
    let before = service.open_files();

    let mut slow = JoinSet::new();
    for _ in 0..250 {
        let api = service.api();
        slow.spawn(async move { dribble(api, b"GET /orders HTTP/1.1\r\nHost: x\r\nX-A: ").await.len() });
        let api = service.api();
        let body =
            b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
        slow.spawn(async move {
            let answers = dribble(api, body).await;
            answers.iter().for_each(|answer| assert_eq!(answer.status, 408, "{answer:?}"));
            answers.len()
        });
        // Well behaved at first: their second head never ends.
        let api = service.api();
        slow.spawn(async move { dribble(api, b"GET /orders/x HTTP/1.1\r\nHost: x\r\n\r\nGET /or").await.len() });
        let api = service.api();
        slow.spawn(async move {
            let mut idle = Raw::connect(&api).await;
            idle.send(GET).await;
            idle.answer().await.is_problem();
            idle.rest().await.len()
        });
    }
    // They ask for more than fits into the network, and read nothing of it.
    let mut greedy = Vec::new();
    for _ in 0..5 {
        let mut caller = Raw::connect(&service.api()).await;
        for _ in 0..200 {
            caller.send(b"GET /orders?limit=200 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        }
        greedy.push(caller);
    }
    wait_until("they are there", seconds(30), async || service.open_files() > before + 500).await;
    client.load(100, 4).await;
    assert_eq!(client.get("/orders").await.status, 200);
    assert_eq!(service.probe("live").await, Some(200));
    assert!(world.history.others().is_empty(), "{:?}", world.history.others());

    slow.join_all().await;
    wait_until("no connection of theirs is left", seconds(90), async || service.open_files() < before + 20).await;
    drop(greedy);
    client.load(20, 4).await;
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

/// Its request is under way for as long as its body may take.
const BUSY: &[u8] = b"POST /orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";

#[tokio::test]
async fn a_connection_too_many_is_503_and_there_is_room_again_when_one_ends() {
    let world = World::new().await;
    let service = world.setup().set("http.max_connections", 5).start().await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut caller = Raw::connect(&service.api()).await;
        caller.send(BUSY).await;
        held.push(caller);
    }
    let active = "http_server_active_requests";
    wait_until("all are under way", seconds(5), async || service.metrics().await.sum(active) == 5.0).await;
    for _ in 0..10 {
        let mut excess = Raw::connect(&service.api()).await;
        excess.send(GET).await;
        let answers = RawAnswer::all(&excess.rest().await);
        assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [503]);
        answers[0].is_problem();
        assert_eq!(answers[0].header("retry-after"), "1");
    }
    held.pop();
    wait_until("there is room", seconds(20), async || {
        let mut caller = Raw::connect(&service.api()).await;
        caller.send(b"GET /orders/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        RawAnswer::all(&caller.rest().await)[0].status == 404
    })
    .await;
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn who_holds_every_connection_and_asks_for_nothing_keeps_nobody_out() {
    let world = World::new().await;
    let service = world.setup().set("http.max_connections", 5).start().await;
    let mut held = Vec::new();
    for n in 0..5 {
        let mut caller = Raw::connect(&service.api()).await;
        // One has begun a head, one has not sent anything, the others have been answered.
        match n {
            0 => {}
            1 => assert!(caller.send(&GET[..20]).await),
            _ => {
                caller.send(GET).await;
                assert_eq!(caller.answer().await.status, 404);
            }
        }
        held.push(caller);
    }
    sleep(Duration::from_millis(300)).await;
    let mut next = Vec::new();
    for _ in 0..5 {
        let mut caller = Raw::connect(&service.api()).await;
        caller.send(GET).await;
        assert_eq!(caller.answer().await.status, 404, "there is room");
        next.push(caller);
    }
    for caller in &mut held {
        assert_eq!(caller.rest().await, b"", "it is closed at once");
    }
    for caller in &mut next {
        caller.send(GET).await;
        assert_eq!(caller.answer().await.status, 404, "and these are not");
    }
    assert_eq!(service.metrics().await.sum("http_server_connections_ended_for_room_total"), 5.0);
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn an_address_may_have_so_many_connections_where_a_setting_says_so() {
    let world = World::new().await;
    let service = world.setup().set("http.max_connections_per_address", 2).start().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut caller = Raw::connect(&service.api()).await;
        caller.send(BUSY).await;
        held.push(caller);
    }
    let active = "http_server_active_requests";
    wait_until("both are under way", seconds(5), async || service.metrics().await.sum(active) == 2.0).await;
    let mut excess = Raw::connect(&service.api()).await;
    excess.send(GET).await;
    assert_eq!(RawAnswer::all(&excess.rest().await)[0].status, 503);
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_that_send_their_largest_head_stay_inside_the_memory_limit() {
    const LIMIT: u64 = 256 * 1024 * 1024;
    allow_files(3_000);
    let world = World::new().await;
    let service = world.setup().start().await;
    let mut sending = JoinSet::new();
    let begun = Arc::new(AtomicUsize::new(0));
    for n in 0..2_000 {
        let (api, begun) = (service.api(), Arc::clone(&begun));
        sending.spawn(async move {
            let mut caller = Raw::connect(&api).await;
            caller.send(b"GET /orders HTTP/1.1\r\nHost: x\r\nX-A: ").await;
            // Some send as much as is taken, the others stop short of it.
            let most = if n % 2 == 0 { 15_000 } else { 130_000 };
            caller.send(&vec![b'a'; most]).await;
            begun.fetch_add(1, Ordering::SeqCst);
            let answers = RawAnswer::all(&caller.rest().await);
            answers.first().map(|answer| answer.status)
        });
    }
    wait_until("all have sent theirs", seconds(60), async || begun.load(Ordering::SeqCst) == 2_000).await;
    let refused = sending.join_all().await;
    assert!(refused.iter().flatten().all(|status| [408, 431].contains(status)), "{refused:?}");
    let (_, most) = service.memory();
    assert!(most < LIMIT, "{most} bytes");
    println!("2,000 heads: {} MB at most", most / 1_000_000);
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_the_largest_files_and_reads_nothing_takes_no_memory() {
    const CALLERS: u32 = 80;
    // Each would have a copy of 1.5 MB of its own.
    const LIMIT: u64 = 48 * 1024 * 1024;
    let world = World::new().await;
    let signer = Signer::es256("main");
    let service = world.setup().trusting(&signer).start().await;
    let before = service.own_memory();
    let mut unread = Vec::new();
    for _ in 0..CALLERS {
        let mut caller = Raw::connect(&service.api()).await;
        // More than the network takes.
        assert!(caller.send(format!("{LARGEST}\r\n").repeat(4).as_bytes()).await);
        unread.push(caller);
    }
    let mut last = 0.0;
    wait_until("all that is taken is answered", seconds(30), async || {
        let answered = service.metrics().await.sum("http_server_request_duration_seconds_count");
        std::mem::replace(&mut last, answered) == answered && answered >= f64::from(CALLERS)
    })
    .await;
    let more = service.own_memory().saturating_sub(before);
    assert!(more < LIMIT, "{more} bytes");

    let mut reader = Raw::connect(&service.api()).await;
    reader.send(format!("{LARGEST}Connection: close\r\n\r\n").as_bytes()).await;
    let answers = RawAnswer::all(&reader.rest().await);
    let length = answers[0].body.len();
    assert!(length > 1_000_000 && answers[0].header("content-length") == length.to_string(), "{length}");
    drop(unread);
    world.judge_nothing_placed().await;
}

/// Holds: Whoever reads no answers holds no connection that others need.
#[tokio::test]
async fn who_reads_no_answers_keeps_nobody_out_and_holds_no_file() {
    const CALLERS: usize = 40;
    let world = World::new().await;
    let service = world.setup().set("http.max_connections", 5).start().await;
    let before = service.open_files();
    let mut unread = Vec::new();
    for _ in 0..CALLERS {
        let mut caller = Raw::connect(&service.api()).await;
        // More than the network takes.
        caller.send(format!("{LARGEST}\r\n").repeat(4).as_bytes()).await;
        unread.push(caller);
        // Each is young for a while, and is not ended then.
        sleep(Duration::from_millis(120)).await;
    }
    wait_until("what made room is gone", seconds(5), async || service.open_files() < before + 15).await;
    assert_eq!(world.client(&service).get("/orders").await.status, 200);
    drop(unread);
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_page_of_another_origin_has_a_rate_like_anybody_without_a_token() {
    let world = World::new().await;
    let setup = world.setup().set("http.rate_limit.per_second", 1).set("http.rate_limit.burst", 3);
    let service = setup.start().await;
    let client = world.client(&service);
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let refused = client.ask(Method::POST, "/orders", &[("origin", "null")], Vec::new()).await.unwrap();
        seen.insert(refused.status);
    }
    assert_eq!(seen, [403, 429].into());
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_401_ends_the_connection_and_who_gets_many_is_429_while_others_are_served() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let setup = world.setup().trusting(&signer);
    let service = setup.set("http.rate_limit.per_second", 1).set("http.rate_limit.burst", 3).start().await;
    let mut caller = Raw::connect(&service.api()).await;
    caller.send(GET).await;
    let answers = RawAnswer::all(&caller.rest().await);
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [401]);
    assert_eq!(answers[0].header("connection"), "close");
    answers[0].is_problem();

    let stranger = world.client(&service).bearing(Signer::es256("main").token(json!({})));
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.insert(stranger.get("/orders").await.status);
    }
    assert_eq!(seen, [401, 429].into());
    let mut caller = Raw::connect(&service.api()).await;
    caller.send(GET).await;
    let refused = caller.answer().await;
    assert_eq!((refused.status, refused.header("connection")), (429, "close"));
    let known = world.client(&service).bearing(signer.token(json!({})));
    assert_eq!(known.get("/orders").await.status, 200, "from the same address, with a token");
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_caller_above_its_rate_is_429_until_it_has_paused() {
    let world = World::new().await;
    let setup = world.setup().set("http.rate_limit.per_second", 1).set("http.rate_limit.burst", 3);
    let service = setup.start().await;
    let client = world.client(&service);
    let mut asking = JoinSet::new();
    for _ in 0..60 {
        let client = client.clone();
        asking.spawn(async move { client.get("/orders").await });
    }
    let answers = asking.join_all().await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((3..30).contains(&taken), "{taken} of 60 at once");
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refused.status, 429, "{refused:?}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1, "{refused:?}");
    }
    wait_until("it may again", seconds(20), async || client.get("/orders").await.status == 200).await;
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn every_answer_tells_browsers_what_they_must_not_do() {
    let world = World::new().await;
    let service = world.setup().set("http.cors.allowed_origins", "https://shop.example").start().await;
    let mut caller = Raw::connect(&service.api()).await;
    for (origin, allowed) in [("https://shop.example", "https://shop.example"), ("https://evil.example", "")] {
        // Another page may change nothing, not even what is not there.
        let refused = if allowed.is_empty() { 403 } else { 405 };
        for (head, status) in
            [("GET /orders HTTP/1.1", 200), ("GET /nothing HTTP/1.1", 404), ("DELETE /orders HTTP/1.1", refused)]
        {
            caller.send(format!("{head}\r\nHost: x\r\nOrigin: {origin}\r\n\r\n").as_bytes()).await;
            let answer = caller.answer().await;
            assert_eq!(answer.status, status, "{answer:?}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("cache-control", "no-store"),
                ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
                ("referrer-policy", "no-referrer"),
                ("server", ""),
                ("x-powered-by", ""),
                ("access-control-allow-origin", allowed),
            ] {
                assert_eq!(answer.header(name), value, "{head}: {answer:?}");
            }
        }
    }
    let question = "OPTIONS /orders HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\n\
        Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n\r\n";
    caller.send(question.as_bytes()).await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "https://shop.example"));
    assert!(answer.header("access-control-allow-methods").contains("POST"), "{answer:?}");
    caller.send(question.replace("shop", "evil").as_bytes()).await;
    let refused = caller.answer().await;
    refused.is_problem();
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (400, ""));

    let closed = world.setup().start().await;
    let mut caller = Raw::connect(&closed.api()).await;
    caller.send(question.as_bytes()).await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (405, ""));
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_wrong_limit_is_a_mistake_of_the_settings() {
    let world = World::new().await;
    let setup = world.setup().set("http.max_connections", 0).set("http.keep_alive", "0s");
    let setup = setup.set("http.rate_limit.burst", 0).set("http.cors.allowed_origins", "https://a.example/,*");
    let told = setup.run(&["config"]).await;
    let mut keys: Vec<_> =
        std::str::from_utf8(&told.stderr).unwrap().lines().filter_map(|l| l.split(": ").next()).collect();
    keys.sort_unstable();
    let expected = ["http.cors.allowed_origins", "http.keep_alive", "http.max_connections", "http.rate_limit.burst"];
    assert_eq!(keys, expected);
    let shown = world
        .setup()
        .set("http.cors.allowed_origins", "https://a.example,http://b.example:8080")
        .run(&["config"])
        .await;
    assert!(std::str::from_utf8(&shown.stdout).unwrap().contains("http://b.example:8080"));
    world.judge_nothing_placed().await;
}

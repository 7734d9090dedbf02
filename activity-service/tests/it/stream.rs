//! Figures as they change: current for as long as the stream is open, and at the cost of one look for all.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::{Events, Postgres, Service, Signer, announcement, wait_until};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::world::{CREATED, World, client, many, seconds};

const DAY: &str = "/activities/stream?from=2026-11-20&to=2026-11-20";

async fn open(service: &Service, path: &str) -> Events {
    Events::open(&format!("{}{path}", service.api()), &[]).await.unwrap()
}

fn quantities(figures: &Value) -> Vec<(&str, i64)> {
    let of = |one: &'_ Value| one["quantity"].as_i64().unwrap();
    figures.as_array().unwrap().iter().map(|one| (one["activityDate"].as_str().unwrap(), of(one))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_come_at_once_and_at_each_change_and_a_caller_who_has_them_is_not_sent_them_again() {
    let world = World::new(1).await;
    world.produce(&many(5)).await;
    world.produce(&[announcement(CREATED, "2026-11-21T10:00:00Z")]).await;
    let service = world.setup().start().await;
    world.has_counted(6, seconds(20)).await;
    let range = "/activities/stream?from=2026-11-01&to=2026-11-30";
    let mut events = open(&service, range).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert_eq!((events.header("cache-control"), events.header("x-accel-buffering")), ("no-store", "no"));
    let first = events.next(seconds(3)).await.unwrap();
    assert_eq!(quantities(&first.data), [("2026-11-20", 5), ("2026-11-21", 1)]);
    let as_asked = client(&service).get("/activities?from=2026-11-01&to=2026-11-30").await.body;
    assert_eq!((first.name.as_str(), &first.data), ("figures", &as_asked));
    let completeness = events.next(seconds(3)).await.unwrap();
    assert_eq!((completeness.name.as_str(), completeness.id.as_ref()), ("completeness", None));
    assert_eq!(completeness.data["completeTo"], Value::Null);

    // Somebody else's days change too: nothing is said of them here.
    let mut other = open(&service, "/activities/stream?from=2026-11-22&to=2026-11-22").await;
    assert_eq!(other.next(seconds(3)).await.unwrap().data, json!([]));
    world.produce(&many(2)).await;
    let changed = events.next_of("figures", seconds(20)).await;
    assert_eq!(quantities(&changed.data), [("2026-11-20", 7)], "the day that changed, whole");
    assert_ne!(first.id, changed.id);
    let source = format!(
        "INSERT INTO sources (source, topic, announced_to, counted_to, unannounced, failed, discarded, told_offset)
            VALUES ('/order-service', '{}', '2026-11-20', '2026-11-20', 0, 0, 0, 0)",
        world.topic().name
    );
    world.database.execute(&source).await;
    let moved = events.next_of("completeness", seconds(20)).await;
    assert!(moved.data["completeTo"].as_str().unwrap().starts_with("2026-11-20T00:00:00"), "{moved:?}");

    // On any instance.
    assert_eq!(service.stop().await, Some(0));
    let service = world.setup().start().await;
    let url = format!("{}{range}", service.api());
    let mut again = Events::open(&url, &[("last-event-id", changed.id.as_deref().unwrap())]).await.unwrap();
    assert_eq!(again.next(seconds(3)).await.unwrap().name, "completeness", "the figures are known");
    world.produce(&many(1)).await;
    assert_eq!(quantities(&again.next_of("figures", seconds(20)).await.data), [("2026-11-20", 8)]);
    let mut behind = Events::open(&url, &[("last-event-id", first.id.as_deref().unwrap())]).await.unwrap();
    let all = behind.next(seconds(3)).await.unwrap();
    assert_eq!(quantities(&all.data), [("2026-11-20", 8), ("2026-11-21", 1)]);

    // What cannot be told as a change ends the stream; so does whoever asks badly never open one.
    let day = "daily_activity_shards WHERE activity_date = '2026-11-21'";
    world.database.execute(&format!("CREATE TABLE taken AS SELECT * FROM {day}; DELETE FROM {day}")).await;
    while behind.next(seconds(20)).await.is_some() {}
    for (path, status) in [("", 400), ("?from=2026-11-20", 400), ("?from=2026-11-21&to=2026-11-20", 422)] {
        assert_eq!(client(&service).get(&format!("/activities/stream{path}")).await.status, status, "{path}");
    }
    assert_eq!(client(&service).get("/activities/stream?from=2025-10-17&to=2026-11-21").await.status, 422);
    assert_eq!(service.stop().await, Some(0));
    world.database.execute("INSERT INTO daily_activity_shards SELECT * FROM taken; DROP TABLE taken").await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_cost_one_look_and_one_too_many_is_refused_and_sigterm_ends_them_all() {
    let world = World::new(1).await;
    world.produce(&many(5)).await;
    let mut service = world.setup().set("http.max_streams", 100).start().await;
    world.has_counted(5, seconds(20)).await;
    let transactions = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    // Of 10 s, in which the service does what it does.
    let spent = async || {
        let before = world.database.number(transactions).await;
        tokio::time::sleep(seconds(10)).await;
        world.database.number(transactions).await - before
    };
    let mut streams = vec![open(&service, DAY).await];
    let one = spent().await;
    let url = format!("{}{DAY}", service.api());
    let mut opening: JoinSet<_> = (1..100)
        .map(|_| {
            let url = url.clone();
            async move { Events::open(&url, &[]).await.unwrap() }
        })
        .collect();
    while let Some(opened) = opening.join_next().await {
        streams.push(opened.unwrap());
    }
    let many = spent().await;
    // Each look of its own would be 20.
    assert!(many < one + 300, "{one} transactions with a stream, {many} with a hundred");
    assert_eq!(service.metrics().await.sum("activity_open_streams"), 100.0);
    let refused = Events::open(&format!("{}{DAY}", service.api()), &[]).await.unwrap_err();
    assert_eq!(refused, (503, "15".into()));
    drop(streams.pop());
    wait_until("its place is free, before anything is sent", seconds(5), async || {
        service.metrics().await.sum("activity_open_streams") < 100.0
    })
    .await;
    streams.push(open(&service, DAY).await);

    let begun = Instant::now();
    service.terminate();
    for stream in &mut streams {
        while stream.next(seconds(10)).await.is_some() {}
    }
    assert_eq!(service.ended(seconds(10)).await.code(), Some(0));
    assert!(begun.elapsed() < seconds(5), "{:?}", begun.elapsed());
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_outlives_the_keep_alive_with_a_comment_and_ends_with_the_token() {
    let (world, signer) = (World::new(1).await, Signer::es256("streams"));
    let setup = world.setup().trusting(&signer).set("http.keep_alive", "1s").set("auth.leeway", "0s");
    let service = setup.start().await;
    let token = signer.token(json!({ "exp": OffsetDateTime::now_utc().unix_timestamp() + 30 }));
    let signed = Instant::now();
    let bearer = format!("Bearer {token}");
    let url = format!("{}{DAY}", service.api());
    assert_eq!(Events::open(&url, &[]).await.unwrap_err().0, 401);
    let mut events = Events::open(&url, &[("authorization", &bearer)]).await.unwrap();
    let begun = Instant::now();
    let mut comments = Vec::new();
    while let Some(event) = events.next(seconds(30)).await {
        if event.name.is_empty() {
            comments.push(begun.elapsed());
        }
        assert!(signed.elapsed() < seconds(38), "the token has ended, and the stream goes on");
    }
    assert!(signed.elapsed() > seconds(27) && signed.elapsed() < seconds(38), "{:?}", signed.elapsed());
    assert!(comments.first().is_some_and(|after| *after > seconds(14)), "{comments:?}");
    assert_eq!(Events::open(&url, &[("authorization", &bearer)]).await.unwrap_err().0, 401);
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

/// Holds: A stream does not outlive the key that its caller's token is signed with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_soon_after_the_key_of_its_token_was_taken_back() {
    let (world, signer) = (World::new(1).await, Signer::es256("streams"));
    let file = std::env::temp_dir().join(format!("{}.json", uuid::Uuid::now_v7()));
    std::fs::write(&file, json!({"keys": [signer.jwk()]}).to_string()).unwrap();
    let service = world.setup().trusting_file(&file).start().await;
    let bearer = format!("Bearer {}", signer.token(json!({})));
    let url = format!("{}{DAY}", service.api());
    let mut events = Events::open(&url, &[("authorization", &bearer)]).await.unwrap();
    std::fs::write(&file, json!({"keys": []}).to_string()).unwrap();
    let begun = Instant::now();
    while events.next(seconds(30)).await.is_some() {}
    assert!(begun.elapsed() < seconds(20), "{:?}", begun.elapsed());
    std::fs::remove_file(file).unwrap();
    assert_eq!(Events::open(&url, &[("authorization", &bearer)]).await.unwrap_err().0, 401);
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_where_the_database_is_out_of_reach_and_cannot_be_opened_meanwhile() {
    let mut postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres, 1).await;
    let service = world.setup().start().await;
    let mut events = open(&service, DAY).await;
    postgres.crash().await;
    while events.next(seconds(15)).await.is_some() {}
    let url = format!("{}{DAY}", service.api());
    let begun = Instant::now();
    assert_eq!(Events::open(&url, &[]).await.unwrap_err(), (503, "1".into()));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    postgres.start_again().await;
    wait_until("it can be opened again", seconds(20), async || Events::open(&url, &[]).await.is_ok()).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

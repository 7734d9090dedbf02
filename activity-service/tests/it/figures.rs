use serde_json::json;
use testing::announcement;

use crate::world::{CREATED, World, client, figures, seconds};

#[tokio::test]
async fn figures_that_have_not_changed_are_304() {
    let world = World::new(1).await;
    world.produce(&[announcement(CREATED, "2026-11-20T10:00:00Z")]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let client = client(&service);
    for path in ["/activities/2026-11-20", "/activities?from=2026-11-20&to=2026-11-20"] {
        let first = client.get(path).await;
        let tag = first.header("etag");
        assert!(!tag.is_empty() && first.header("cache-control") == "private, no-cache", "{first:?}");
        let again = client.ask(reqwest::Method::GET, path, &[("if-none-match", tag)], Vec::new()).await.unwrap();
        assert_eq!((again.status, again.bytes.len()), (304, 0));
        world.produce(&[announcement(CREATED, "2026-11-20T10:00:00Z")]).await;
        world.at_rest().await;
        let changed = client.ask(reqwest::Method::GET, path, &[("if-none-match", tag)], Vec::new()).await.unwrap();
        assert_eq!(changed.status, 200);
        assert_ne!((changed.header("etag"), &changed.body), (tag, &first.body));
    }
    world.judge().await;
}

#[tokio::test]
async fn a_day_and_a_range_of_days_are_told_by_day_then_code() {
    let world = World::new(3).await;
    let mut messages = Vec::new();
    for (code, at, quantity) in [
        ("ORDER_CREATED", "2026-11-20T10:00:00Z", 3),
        ("ORDER_COMPLETED", "2026-11-20T11:00:00Z", 2),
        ("ORDER_CANCELLED", "2026-11-20T12:00:00Z", 1),
        ("ORDER_CREATED", "2026-11-21T10:00:00Z", 4),
        ("ORDER_CANCELLED", "2025-10-19T10:00:00Z", 5),
        ("ORDER_CREATED", "2000-01-01T00:00:00Z", 6),
    ] {
        messages.extend((0..quantity).map(|_| announcement(code, at)));
    }
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;

    let day = client(&service).get("/activities/2026-11-20").await;
    assert_eq!(day.header("content-type"), "application/json");
    let summary = |code: &str, name: &str, quantity: u64| json!({"activityDate": "2026-11-20", "activityTypeCode": code, "activityTypeName": name, "quantity": quantity});
    let mut told = day.body.clone();
    for one in told.as_array_mut().unwrap().iter_mut().map(|one| one.as_object_mut().unwrap()) {
        assert!(one.remove("lastCountedAt").unwrap().is_string(), "when it was counted");
        assert_eq!((one.remove("lateQuantity"), one.remove("missingQuantity")), (Some(json!(0)), Some(json!(0))));
    }
    assert_eq!(
        told,
        json!([
            summary("ORDER_CANCELLED", "Order Cancelled", 1),
            summary("ORDER_COMPLETED", "Order Completed", 2),
            summary("ORDER_CREATED", "Order Created", 3),
        ])
    );
    let row = |day: &str, code: &str, quantity| (day.to_owned(), code.to_owned(), quantity);
    let all_of_20 = [
        row("2026-11-20", "ORDER_CANCELLED", 1),
        row("2026-11-20", "ORDER_COMPLETED", 2),
        row("2026-11-20", "ORDER_CREATED", 3),
    ];
    let (next, year_ago, first) =
        (row("2026-11-21", CREATED, 4), row("2025-10-19", "ORDER_CANCELLED", 5), row("2000-01-01", CREATED, 6));
    for (path, expected) in [
        ("/activities/2026-11-19", vec![]),
        ("/activities/0000-01-01", vec![]),
        ("/activities/9999-12-31", vec![]),
        ("/activities/2000-01-01", vec![first.clone()]),
        ("/activities?from=2026-11-20&to=2026-11-20", all_of_20.to_vec()),
        ("/activities?to=2026-11-21&from=2026-11-20", [&all_of_20[..], std::slice::from_ref(&next)].concat()),
        ("/activities?from=2026-11-21&to=2026-11-30", vec![next.clone()]),
        ("/activities?from=2026-11-01&to=2026-11-19", vec![]),
        (
            "/activities?from=2026-11-20&to=2026-11-21&activityTypeCode=ORDER_CREATED",
            vec![all_of_20[2].clone(), next.clone()],
        ),
        ("/activities?from=2026-11-20&to=2026-11-21&activityTypeCode=ORDER_EATEN", vec![]),
        // 400 days, both ends included
        (
            "/activities?from=2025-10-18&to=2026-11-21&activityTypeCode=ORDER_CANCELLED",
            vec![year_ago.clone(), all_of_20[0].clone()],
        ),
        ("/activities?from=1999-01-01&to=2000-01-01", vec![first]),
    ] {
        assert_eq!(figures(&service, path).await, expected, "{path}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn the_types_known_from_the_start_are_told() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    let types = client(&service).get("/activity-types").await;
    let one = |code: &str, name: &str| json!({"activityTypeCode": code, "activityTypeName": name});
    assert_eq!(
        types.body,
        json!([
            one("ORDER_CANCELLED", "Order Cancelled"),
            one("ORDER_COMPLETED", "Order Completed"),
            one("ORDER_CREATED", "Order Created")
        ])
    );
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn a_lone_message_is_counted_within_a_second() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    world.produce(&[announcement(CREATED, "2026-11-20T10:00:00Z")]).await;
    world.at_rest().await;
    let mut took = Vec::new();
    for count in 2..=6 {
        let begun = std::time::Instant::now();
        world.produce(&[announcement(CREATED, "2026-11-20T10:00:00Z")]).await;
        world.has_counted(count, seconds(5)).await;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    assert!(took[2] < seconds(1), "{took:?}");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn hours_are_those_of_utc_whatever_zone_ends_the_day() {
    let world = World::new(1).await;
    let mut messages = Vec::new();
    for (code, at, quantity) in [
        (CREATED, "2026-11-20T22:59:59.999999Z", 1),
        (CREATED, "2026-11-20T23:00:00Z", 2),
        (CREATED, "2026-11-21T00:30:00+05:30", 3),
        (CREATED, "2026-11-21T00:00:00Z", 4),
        ("ORDER_CANCELLED", "2026-11-21T00:59:00Z", 5),
    ] {
        messages.extend((0..quantity).map(|_| announcement(code, at)));
    }
    world.produce(&messages).await;
    let service = world.setup().set("statistics.time_zone", "Asia/Kolkata").start().await;
    world.at_rest().await;
    let ask = async |query: &str| client(&service).get(&format!("/activities/hourly?{query}")).await;
    let hour = |at: &str, code: &str, name: &str, quantity: i64| json!({"hour": at, "activityTypeCode": code, "activityTypeName": name, "quantity": quantity});
    let of_20 = [
        hour("2026-11-20T19:00:00Z", CREATED, "Order Created", 3),
        hour("2026-11-20T22:00:00Z", CREATED, "Order Created", 1),
        hour("2026-11-20T23:00:00Z", CREATED, "Order Created", 2),
    ];
    let of_21 = [
        hour("2026-11-21T00:00:00Z", "ORDER_CANCELLED", "Order Cancelled", 5),
        hour("2026-11-21T00:00:00Z", CREATED, "Order Created", 4),
    ];
    for (query, expected) in [
        ("from=2026-11-20&to=2026-11-20", json!(of_20)),
        ("from=2026-11-01&to=2026-11-21", json!([&of_20[..], &of_21[..]].concat())),
        ("from=2026-11-21&to=2026-12-21&activityTypeCode=ORDER_CREATED", json!([of_21[1]])),
        ("from=2026-11-22&to=2026-11-22", json!([])),
    ] {
        let answer = ask(query).await;
        assert_eq!((answer.status, &answer.body), (200, &expected), "{query}");
        let tag = answer.header("etag");
        let path = format!("/activities/hourly?{query}");
        let again = client(&service).ask(reqwest::Method::GET, &path, &[("if-none-match", tag)], Vec::new()).await;
        assert_eq!(again.unwrap().status, 304);
    }
    for (query, status) in [
        ("", 400),
        ("from=2026-11-20", 400),
        ("from=2026-11-20&to=today", 400),
        ("from=2026-11-20&to=2026-11-20&hour=1", 400),
        ("from=2026-11-20&to=2026-11-20&activityTypeCode=created", 400),
        ("from=2026-11-21&to=2026-11-20", 422),
        ("from=2026-11-21&to=2026-12-22", 422),
    ] {
        assert_eq!(ask(query).await.status, status, "{query}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

use reqwest::Method;
use testing::{Answer, describe};

use crate::world::{World, client, created};

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
    assert!(!problem["detail"].as_str().unwrap().contains("canary"), "{path}: {problem}");
    assert_eq!(problem.get("errors").is_some(), status == 422, "{path}: {problem}");
}

#[tokio::test]
async fn a_bad_request_gets_the_problem_that_fits_and_nothing_is_written() {
    let world = World::new(1).await;
    world.produce(&[created()]).await;
    let service = world.setup().start().await;
    let client = client(&service);
    world.at_rest().await;
    let before = describe(&world.database).await;

    for day in [
        "yesterday",
        "Today",
        "TODAY",
        "2026-13-01",
        "2026-02-29",
        "2026-11-31",
        "2026-1-1",
        "20261120",
        "2026-11-20T00:00:00Z",
        "-2026-11-20",
        "+2026-11-20",
        "12026-11-20",
        "2026-11-20%20",
        "2026%2D11%2D2",
        "%ff",
        "%00",
        "0",
        "canary",
    ] {
        let path = format!("/activities/{day}");
        is_problem(&client.get(&path).await, 400, &path);
    }
    for query in [
        "",
        "?",
        "?from=2026-11-20",
        "?to=2026-11-20",
        "?from=&to=2026-11-20",
        "?from=2026-11-20&to=canary",
        "?from=2026-02-30&to=2026-03-01",
        "?from=today&to=today",
        "?from=2026-11-20&to=2026-11-20&from=2026-11-20",
        "?from=2026-11-20&to=2026-11-20&activityTypeCode=",
        "?from=2026-11-20&to=2026-11-20&activityTypeCode=canary",
        "?from=2026-11-20&to=2026-11-20&activityTypeCode=ORDER_CREATED%00",
        "?from=2026-11-20&to=2026-11-20&canary=1",
        "?from=2026-11-20&to=2026-11-20&limit=1",
        "?From=2026-11-20&to=2026-11-20",
        "?from=2026-11-20&to=%ff",
    ] {
        let path = format!("/activities{query}");
        is_problem(&client.get(&path).await, 400, &path);
    }
    for path in ["/activities/2026-11-20?canary=1", "/activity-types?limit=1"] {
        is_problem(&client.get(path).await, 400, path);
    }
    for query in ["from=2026-11-21&to=2026-11-20", "from=2025-10-16&to=2026-11-20", "from=0000-01-01&to=9999-12-31"] {
        let path = format!("/activities?{query}");
        let answer = client.get(&path).await;
        is_problem(&answer, 422, &path);
        let pointers: Vec<_> =
            answer.body["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
        assert_eq!(pointers, ["/to"]);
    }
    for path in [
        "/index.html",
        "/activity",
        "/activities/",
        "/activities/2026-11-20/",
        "/activities/2026-11-20/1",
        "/Activities",
    ] {
        is_problem(&client.get(path).await, 404, path);
    }
    for (method, path, allow) in [
        (Method::POST, "/activities", "GET"),
        (Method::DELETE, "/activities/2026-11-20", "GET"),
        (Method::PUT, "/activities/today", "GET"),
        (Method::PATCH, "/activity-types", "GET"),
    ] {
        let answer = client.ask(method, path, &[("content-type", "application/json")], b"{}".to_vec()).await.unwrap();
        is_problem(&answer, 405, path);
        assert_eq!(answer.header("allow"), allow, "{path}");
    }
    assert_eq!(describe(&world.database).await, before);
    world.judge().await;
}

#[tokio::test]
async fn a_reasonable_request_id_is_kept_and_another_replaced() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    let client = client(&service);
    let long = "x".repeat(128);
    for (given, kept) in [("a.B_c-9", true), (&long, true), (&format!("{long}x"), false), ("a b", false), ("", false)] {
        for path in ["/activities/today", "/nowhere"] {
            let answer = client.ask(Method::GET, path, &[("x-request-id", given)], Vec::new()).await.unwrap();
            assert_eq!(answer.header("x-request-id") == given, kept, "{given}");
            assert!(!answer.header("x-request-id").is_empty());
        }
    }
    world.judge_nothing_counted().await;
}

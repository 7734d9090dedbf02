//! What operators see beside lists of messages, and what is kept of what they do.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testing::wait_until;

use crate::{
    messages::{failed_and_published, refs},
    world::{World, identity, seconds},
};

/// Who did what, and by which way.
fn summary(entry: &Value) -> (&str, &str, &str) {
    let text = |name: &str| entry[name].as_str().unwrap();
    (text("action"), text("actor"), text("via"))
}

#[tokio::test]
async fn a_failed_message_is_discarded_with_a_reason_and_stays_visible() {
    let (world, service, client) = failed_and_published(3, 2).await;
    let failed = refs(&client.list("/admin/messages").await);
    let (lost, rest) = (failed[1], [failed[0], failed[2]]);
    let discard = async |path: String| client.ask(Method::DELETE, &path, &[], Vec::new()).await.unwrap();
    let path = format!("/admin/messages/{lost}");
    assert_eq!(discard(path.clone()).await.status, 400, "a reason is required");
    assert_eq!(discard(format!("{path}?reason=%20")).await.status, 422);
    assert_eq!(discard(format!("{path}?reason=a%0Ab")).await.status, 422);
    assert_eq!(client.list("/admin/messages").await.len(), 3, "nothing was changed");

    let discarded = discard(format!("{path}?reason=its+order+was+a+test")).await;
    assert_eq!(discarded.status, 200);
    assert_eq!(
        (&discarded.body["state"], &discarded.body["discardReason"]),
        (&json!("discarded"), &json!("its order was a test"))
    );
    assert_eq!(discarded.body["discardedBy"], "anonymous");
    assert_eq!(json!(client.list("/admin/messages?state=discarded").await), json!([discarded.body]));
    assert_eq!(refs(&client.list("/admin/messages").await), rest);
    for (path, status) in
        [(format!("{path}?reason=again"), 409), (format!("/admin/messages/{}?reason=x", uuid::Uuid::now_v7()), 404)]
    {
        assert_eq!(discard(path).await.status, status);
    }
    let retry = async |path: String| client.ask(Method::POST, &path, &[], Vec::new()).await.unwrap();
    assert_eq!(retry(format!("{path}/retry")).await.status, 409, "it is given up for good");

    // Only the others are left to be seen to, and are sent.
    wait_until("two are told", seconds(20), async || service.metrics().await.sum("outbox_failed_messages") == 2.0)
        .await;
    assert_eq!(retry("/admin/messages/retry".into()).await.body, json!({"retried": 2}));
    wait_until("they are published", seconds(20), async || world.count("published").await == 4).await;
    // Nor does whoever adopts the log next send it.
    service.kill().await;
    let service = world.setup().start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(world.count("discarded").await, 1);
    assert_eq!(world.topic.dump().await.len(), 4);
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.failed([lost])).await;
}

#[tokio::test]
async fn messages_are_chosen_by_order_type_time_and_error_and_so_is_what_is_retried() {
    let (world, service, client) = failed_and_published(3, 4).await;
    let failed = client.list("/admin/messages").await;
    let order = failed[0]["orderRef"].as_str().unwrap().to_owned();
    let ended = client.place_one().await;
    assert_eq!(client.change(&ended, "cancel").await.unwrap().status, 200);
    wait_until("they are published", seconds(20), async || world.count("published").await == 6).await;
    let at = failed[1]["placedAt"].as_str().unwrap();
    let (none, later) = ("OS999999-ORD", "2099-01-01T00:00:00Z");
    for (query, count) in [
        (format!("orderRef={}", order.to_lowercase()), 1),
        (format!("orderRef={none}"), 0),
        ("activityTypeCode=ORDER_CREATED".into(), 3),
        ("activityTypeCode=ORDER_CANCELLED".into(), 0),
        (format!("from={at}"), 3),
        (format!("from={later}"), 0),
        (format!("to={at}"), 0),
        (format!("to={later}"), 3),
        ("error=TOO%20large".into(), 3),
        ("error=100%25".into(), 0),
        ("state=published&activityTypeCode=ORDER_CANCELLED".into(), 1),
        ("state=published&activityTypeCode=ORDER_CREATED&limit=2".into(), 5),
        (format!("state=published&orderRef={ended}&limit=1"), 2),
        (format!("state=published&orderRef={ended}&activityTypeCode=ORDER_CREATED"), 1),
        (format!("state=published&orderRef={order}"), 0),
        (format!("state=published&to={at}"), 0),
        (format!("state=published&from={at}&to={later}&limit=4"), 6),
        ("state=published&error=large".into(), 0),
        (format!("state=unpublished&orderRef={order}"), 0),
        ("state=unpublished&activityTypeCode=ORDER_CREATED&error=x".into(), 0),
        ("state=discarded&activityTypeCode=ORDER_CREATED".into(), 0),
    ] {
        assert_eq!(client.list(&format!("/admin/messages?{query}")).await.len(), count, "{query}");
    }
    for (query, status) in [
        ("orderRef=7", 400),
        ("activityTypeCode=created", 400),
        ("from=yesterday", 400),
        ("error=", 400),
        (&format!("from={later}&to={at}"), 422),
    ] {
        assert_eq!(client.get(&format!("/admin/messages?{query}")).await.status, status, "{query}");
    }

    let retry = async |query: &str, body: &str| {
        let json = [("content-type", "application/json")];
        client.ask(Method::POST, &format!("/admin/messages/retry?{query}"), &json, body.into()).await.unwrap()
    };
    let mine = format!("orderRef={order}");
    for (query, dry, count) in
        [(&*mine, true, 1), ("", true, 3), ("error=nothing", false, 0), (&mine, false, 1), (&mine, false, 0)]
    {
        let answer = retry(query, &json!({"dryRun": dry, "reason": " it fits "}).to_string()).await;
        assert_eq!((answer.status, answer.body), (202, json!({"retried": count})), "{query} {dry}");
    }
    assert_eq!(retry("state=published", "{}").await.status, 400);
    for wrong in [json!({"dry": true}), json!({"reason": " "}), json!({"reason": "x".repeat(501)})] {
        assert_eq!(retry("", &wrong.to_string()).await.status, 422, "{wrong}");
    }
    let audited = client.list("/admin/audit?action=message_retried").await;
    assert_eq!((audited.len(), &audited[0]["reason"]), (1, &json!("it fits")));
    wait_until("it is published", seconds(20), async || world.count("published").await == 7).await;
    assert_eq!(world.count("failed").await, 2, "the others stay as they are");
    assert_eq!(service.stop().await, Some(0));
    let rest = refs(&failed[1..]);
    world.judge_with(|checker| checker.failed(rest)).await;
}

#[tokio::test]
async fn a_page_looks_at_so_many_messages_and_the_next_one_goes_on() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    // The first of many is the one that is looked for.
    let ended = client.place_one().await;
    assert_eq!(client.change(&ended, "cancel").await.unwrap().status, 200);
    world.at_rest(seconds(20)).await;
    world.left_by_ended(60_000, 0).await;
    world.at_rest(seconds(60)).await;
    let first = client.get("/admin/messages?state=published&activityTypeCode=ORDER_CANCELLED").await;
    assert_eq!(first.body, json!([]), "it has looked at enough");
    assert!(first.next().is_some());
    assert_eq!(client.list("/admin/messages?state=published&activityTypeCode=ORDER_CANCELLED").await.len(), 1);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: No operator changes an order or a message without a row in the audit, and no service can change or delete
/// such a row.
#[tokio::test]
async fn everything_that_is_done_leaves_a_row_in_the_audit() {
    let (world, service, client) = failed_and_published(3, 1).await;
    let failed = refs(&client.list("/admin/messages").await);
    let order = client.place_one().await;
    let named = [("x-request-id", "request-7")];
    let ask = async |method: Method, path: String| client.ask(method, &path, &named, Vec::new()).await.unwrap().status;
    // What changes nothing leaves nothing.
    for _ in 0..2 {
        assert_eq!(ask(Method::POST, format!("/orders/{order}/complete")).await, 200);
    }
    assert_eq!(ask(Method::POST, format!("/orders/{order}/cancel")).await, 409);
    assert_eq!(ask(Method::POST, format!("/admin/messages/{}/retry", failed[0])).await, 202);
    assert_eq!(ask(Method::DELETE, format!("/admin/messages/{}?reason=a+test", failed[1])).await, 200);
    assert_eq!(ask(Method::POST, "/admin/messages/retry".into()).await, 202);
    let (from, to) = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let again = ["messages", "rebroadcast", "--from", from, "--to", to, "--actor", "anna"];
    assert_eq!(world.setup().run(&[&again[..], &["--dry-run"]].concat()).await.status.code(), Some(0));
    assert_eq!(world.setup().run(&again).await.status.code(), Some(0));
    let level = reqwest::Client::new().put(format!("{}/log-level", service.management()));
    assert_eq!(level.json(&json!({"level": "debug"})).send().await.unwrap().status(), 200);
    wait_until("the level is there", seconds(10), async || client.list("/admin/audit").await.len() == 6).await;

    let all = client.list("/admin/audit?limit=2").await;
    let expected = [
        ("log_level_changed", "127.0.0.1", "management"),
        ("messages_rebroadcast", "anna", "command"),
        ("message_retried", "anonymous", "api"),
        ("message_discarded", "anonymous", "api"),
        ("message_retried", "anonymous", "api"),
        ("order_completed", "anonymous", "api"),
    ];
    assert_eq!(all.iter().map(summary).collect::<Vec<_>>(), expected, "newest first");
    let subjects: Vec<_> = all.iter().map(|one| one["subject"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        subjects,
        [
            "debug".into(),
            format!("{from}/{to}"),
            failed[2].to_string(),
            failed[1].to_string(),
            failed[0].to_string(),
            order.clone()
        ]
    );
    assert!(all[2..].iter().all(|one| one["requestId"] == "request-7"), "{all:?}");
    assert_eq!((&all[3]["reason"], &all[2]["reason"]), (&json!("a test"), &Value::Null));
    let at = all[3]["at"].as_str().unwrap();
    for (query, count) in [
        ("action=message_retried", 2),
        ("action=order_completed&actor=anonymous", 1),
        ("actor=anonymous", 4),
        ("actor=nobody", 0),
        (&format!("from={at}"), 4),
        (&format!("to={at}&limit=1"), 2),
    ] {
        assert_eq!(client.list(&format!("/admin/audit?{query}")).await.len(), count, "{query}");
    }
    for (query, status) in [
        ("action=drank", 400),
        ("from=x", 400),
        ("order=1", 400),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 422),
    ] {
        assert_eq!(client.get(&format!("/admin/audit?{query}")).await.status, status, "{query}");
    }

    // It only grows.
    let mut role = PgConnection::connect(&world.database.url()).await.unwrap();
    for statement in ["UPDATE audit SET actor = 'another'", "DELETE FROM audit", "TRUNCATE audit"] {
        let refused = sqlx::raw_sql(statement).execute(&mut role).await.expect_err(statement);
        assert_eq!(refused.into_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
    }
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    let lost = failed[1];
    world.judge_with(|checker| checker.failed([lost])).await;
}

#[tokio::test]
async fn the_way_of_an_order_is_told_oldest_first() {
    let (world, service, client) = failed_and_published(1, 1).await;
    let failed = client.list("/admin/messages").await.remove(0);
    let order = failed["orderRef"].as_str().unwrap().to_owned();
    let retry = format!("/admin/messages/{}/retry", failed["messageRef"].as_str().unwrap());
    let named = [("x-request-id", "again"), ("content-type", "application/json")];
    let why = json!({"reason": "it fits"}).to_string();
    assert_eq!(client.ask(Method::POST, &retry, &named, why.into()).await.unwrap().status, 202);
    world.at_rest(seconds(20)).await;
    assert_eq!(client.change(&order, "cancel").await.unwrap().status, 200);
    world.at_rest(seconds(20)).await;

    let path = format!("/admin/orders/{}/timeline", order.to_lowercase());
    let told = client.get(&path).await;
    assert_eq!(told.status, 200);
    let events = told.body.as_array().unwrap();
    let names: Vec<_> = events.iter().map(|one| one["event"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["placed", "written", "failed", "retried", "acknowledged", "cancelled", "written", "acknowledged"]
    );
    assert_eq!(
        (&events[2]["failures"], &events[2]["by"]),
        (&json!(1), &json!(format!("instance {}", identity(&service))))
    );
    assert!(events[2]["reason"].as_str().unwrap().contains("too large"), "{events:?}");
    assert_eq!((&events[3]["by"], &events[3]["requestId"]), (&json!("anonymous"), &json!("again")));
    assert_eq!(events[3]["reason"], "it fits");
    assert_eq!(events[5]["by"], "anonymous");
    for (event, on_topic) in [events[4].clone(), events[7].clone()]
        .iter()
        .zip(world.topic.dump().await.iter().filter(|one| one.key.as_deref() == Some(order.as_bytes())))
    {
        assert_eq!((&event["partition"], &event["offset"]), (&json!(on_topic.partition), &json!(on_topic.offset)));
    }
    // The message's own part, for people with a shell.
    let reference = failed["messageRef"].as_str().unwrap();
    let done = world.setup().run(&["messages", "history", reference, "--json"]).await;
    let history: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
    let of_message: Vec<_> = events.iter().filter(|one| one["messageRef"] == reference).cloned().collect();
    assert_eq!(history, of_message);
    let done = world.setup().run(&["messages", "history", reference]).await;
    assert!(String::from_utf8(done.stdout).unwrap().contains("acknowledged"));

    for unknown in ["OS999999-ORD", "7"] {
        assert_eq!(client.get(&format!("/admin/orders/{unknown}/timeline")).await.status, 404);
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.failures_allowed()).await;
}

#[tokio::test]
async fn the_instances_are_told_with_what_they_have_to_send() {
    let world = World::new().await;
    let (one, other) = (world.setup().start().await, world.setup().start().await);
    let client = world.client(&one);
    client.load(10, 2).await;
    world.at_rest(seconds(20)).await;
    let (first, second) = (identity(&one), identity(&other));
    // The lock of what has just gone is free.
    world.left_behind(3, 900).await;
    let told = client.list("/admin/instances").await;
    let of =
        |id: i64| told.iter().find(|one| one["instance"] == id).unwrap_or_else(|| panic!("{id} is told: {told:?}"));
    for id in [first, second] {
        assert_eq!((&of(id)["state"], &of(id)["unpublished"]), (&json!("publishing"), &json!(0)), "{told:?}");
        assert!(of(id)["startedAt"].is_string() && of(id)["endedAt"].is_null());
    }
    assert_eq!((&of(900)["state"], &of(900)["unpublished"]), (&json!("gone"), &json!(3)));
    world.at_rest(seconds(20)).await;
    wait_until("it is done", seconds(20), async || {
        client.list("/admin/instances").await.iter().all(|one| one["instance"] != 900)
    })
    .await;
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn the_command_line_chooses_discards_and_says_who_did_it() {
    let (world, service, client) = failed_and_published(3, 1).await;
    let failed = client.list("/admin/messages").await;
    let run = async |arguments: &[&str]| {
        let done = world.setup().variable("USER", "bad\u{1b}[31mname").variable("LOGNAME", "anna").run(arguments).await;
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
    };
    let order = failed[0]["orderRef"].as_str().unwrap();
    let (_, listed) =
        run(&["messages", "list", "--order", order, "--error", "large", "--type", "ORDER_CREATED", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap(), json!([failed[0]]));
    assert_eq!(run(&["messages", "list", "--since", "2099-01-01T00:00:00Z", "--json"]).await.1, "[]\n");
    let one = failed[0]["messageRef"].as_str().unwrap();
    assert_eq!(run(&["messages", "discard", one]).await.0, 2, "a reason is required");
    assert_eq!(run(&["messages", "discard", one, "--reason", "a\nb"]).await.0, 2);
    assert_eq!(run(&["messages", "discard", one, "--reason", "a test", "--actor", "a\u{7}b"]).await.0, 2);
    let (code, discarded) = run(&["messages", "discard", one, "--reason", "a test", "--json"]).await;
    let discarded: Value = serde_json::from_str(&discarded).unwrap();
    assert_eq!((code, &discarded["state"], &discarded["discardedBy"]), (0, &json!("discarded"), &json!("anna")));
    assert_eq!(run(&["messages", "discard", one, "--reason", "a test"]).await.0, 1);
    let order = failed[1]["orderRef"].as_str().unwrap();
    assert_eq!(run(&["messages", "retry", "--all", "--order", order]).await, (0, "retried 1 messages\n".to_owned()));
    assert_eq!(run(&["messages", "retry", one, "--order", order]).await.0, 2);

    let audit = client.list("/admin/audit").await;
    assert_eq!(audit.len(), 2);
    for entry in &audit {
        assert_eq!(
            (&entry["via"], &entry["actor"], &entry["databaseRole"]),
            (&json!("command"), &json!("anna"), &json!("test_service"))
        );
        assert!(
            entry["osUser"].as_str().unwrap().starts_with(|c: char| c.is_ascii_digit()),
            "the system's own word: {entry}"
        );
    }
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    let left = [0, 2].map(|index| failed[index]["messageRef"].as_str().unwrap().parse().unwrap());
    world.judge_with(|checker| checker.failed(left)).await;
}

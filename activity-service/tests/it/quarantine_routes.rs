//! The quarantine over HTTP: lists, one message, replay, discarding, and what is kept of who and why.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    operator::{EATEN, Operator, eaten, replayed, replayed_all},
    world::{World, created, many},
};

fn offsets(entries: &[Value]) -> Vec<i64> {
    entries.iter().map(|one| one["offset"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn messages_are_listed_oldest_first_filtered_and_in_pages_and_shown_with_their_bytes() {
    let world = World::new(1).await;
    let bad_date = created().with_field("activityAt", "1999-12-31T12:00:00Z");
    let marked = created().with_value(b"\xff\0 raw".as_slice());
    let marked = marked.with_header("<b>", b"\xff\0".as_slice()).with_header("empty", Vec::new());
    let mut messages = vec![marked, bad_date, eaten(), eaten().without_headers()];
    messages.extend(std::iter::repeat_with(eaten).take(3));
    messages.push(testing::Received { value: None, ..created() });
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let all = operator.quarantine("").await;
    assert_eq!(offsets(&all), (0..8).collect::<Vec<_>>());
    let reasons: Vec<_> = all.iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons[..3], ["not_json", "bad_date", "unknown_type"]);
    assert_eq!(reasons[7], "no_value");
    for limit in [1, 3, 200] {
        assert_eq!(operator.quarantine(&format!("limit={limit}")).await, all, "{limit}");
    }
    assert_eq!(offsets(&operator.quarantine("reason=unknown_type&limit=2").await), [2, 3, 4, 5, 6]);
    assert!(operator.quarantine("state=discarded").await.is_empty());
    let encoded = |value: &Vec<u8>| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, value);
    for (entry, message) in all.iter().zip(&messages) {
        let path = format!("/admin/quarantine/{}", entry["id"].as_str().unwrap());
        let mut whole = operator.0.get(&path).await.body;
        let value = whole.as_object_mut().unwrap().remove("valueBase64").unwrap();
        let headers = whole.as_object_mut().unwrap().remove("headers");
        assert_eq!(whole, *entry);
        assert_eq!(value, json!(message.value.as_ref().map(encoded)));
        let sent = message
            .headers
            .iter()
            .map(|(name, value)| json!({ "name": name, "valueBase64": value.as_ref().map(encoded) }));
        assert_eq!(headers, (!message.headers.is_empty()).then(|| sent.collect()));
        assert_eq!((&entry["topic"], &entry["partition"]), (&json!(world.topic().name), &json!(0)));
        assert_eq!(entry.get("resolvedAt"), None);
    }

    // A cursor goes with the filter it is of.
    let page = operator.0.get("/admin/quarantine?limit=1").await;
    let other = page.next().unwrap().replace("limit=1", "limit=1&state=discarded");
    assert_eq!(operator.0.get(&other).await.status, 400);
    for (query, status) in
        [("state=new", 400), ("reason=x", 400), ("cursor=x", 400), ("x=1", 400), ("limit=0", 422), ("limit=201", 422)]
    {
        assert_eq!(operator.0.get(&format!("/admin/quarantine?{query}")).await.status, status, "{query}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn one_or_all_are_replayed_and_it_is_kept_who_did_it_and_why() {
    let world = World::new(1).await;
    let refused = many(3);
    let list = refused.iter().map(|one| format!("'{}'", one.message_ref().unwrap())).collect::<Vec<_>>().join(",");
    let constraint =
        format!("ALTER TABLE processed_messages ADD CONSTRAINT not_these CHECK (message_ref NOT IN ({list}))");
    world.database.execute(&constraint).await;
    world.produce(&refused).await;
    world.produce(&[created().with_value("not json"), created()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let before = operator.quarantine("").await;
    assert_eq!(offsets(&before), [0, 1, 2, 3]);
    assert_eq!(operator.replay(None, &json!({})).await.body, replayed_all(0, 0, 4), "nothing has changed");
    assert_eq!(operator.quarantine("").await, before);

    world.database.execute("ALTER TABLE processed_messages DROP CONSTRAINT not_these").await;
    let one = operator.id_at(1, "waiting").await;
    for which in [Some(&*one), None] {
        assert_eq!(operator.replay(which, &json!({"reason": " "})).await.status, 422);
    }
    let reason = json!({"reason": " it can be stored now "});
    assert_eq!(operator.replay(Some(&one), &reason).await.body, replayed(1, 0, 0));
    assert_eq!((world.counted().await, offsets(&operator.quarantine("").await)), (2, vec![0, 2, 3]));
    // A body is not needed.
    let all = operator.0.ask(Method::POST, "/admin/quarantine/replay", &[], Vec::new()).await.unwrap();
    assert_eq!((all.status, all.body), (200, replayed_all(2, 0, 1)));
    assert_eq!((world.counted().await, offsets(&operator.quarantine("").await)), (4, vec![3]));
    let counted = operator.quarantine("state=counted").await;
    assert_eq!(offsets(&counted), [0, 1, 2]);
    for (entry, why) in counted.iter().zip(["replayed", "replayed: it can be stored now", "replayed"]) {
        assert_eq!((&entry["resolvedBy"], &entry["resolution"]), (&json!("anonymous"), &json!(why)));
        assert!(entry["resolvedAt"].as_str() > entry["receivedAt"].as_str(), "{entry}");
    }

    let unknown = Uuid::now_v7().to_string();
    for (id, body, status) in [
        (one.as_str(), json!({}), 409),
        (&unknown, json!({}), 404),
        ("x", json!({}), 404),
        (&unknown, json!({"force": 1}), 422),
        (&unknown, json!({"canary": true}), 422),
    ] {
        assert_eq!(operator.replay(Some(id), &body).await.status, status, "{id} {body}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn discarding_wants_a_reason_and_ends_the_waiting_for_good() {
    let world = World::new(1).await;
    world.produce(&[eaten(), eaten(), created()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let id = operator.id_at(0, "waiting").await;
    let (long, too_long) = ("x".repeat(500), format!("?reason={}", "x".repeat(501)));
    for (query, status) in
        [("", 400), ("?why=x", 400), ("?reason=", 422), ("?reason=%20", 422), ("?reason=a%0Ab", 422), (&too_long, 422)]
    {
        assert_eq!(operator.discard(&id, query).await.status, status, "{query}");
    }
    assert_eq!(world.kept("waiting").await, 2);
    let answer = operator.discard(&id, &format!("?reason=%20{long}")).await;
    assert_eq!(answer.status, 200);
    let kept = &operator.quarantine("state=discarded").await[0];
    assert_eq!(answer.body, *kept);
    assert_eq!((&kept["resolvedBy"], &kept["resolution"]), (&json!("anonymous"), &json!(long)));

    assert_eq!(operator.discard(&id, "?reason=again").await.status, 409);
    assert_eq!(operator.replay(Some(&id), &json!({"force": true})).await.status, 409);
    for unknown in [Uuid::now_v7().to_string().as_str(), "x"] {
        assert_eq!(operator.discard(unknown, "?reason=x").await.status, 404);
    }
    assert_eq!(operator.register(EATEN, "Order Eaten").await.body, json!({"counted": 1, "duplicates": 0}));
    assert_eq!(operator.quarantine("state=discarded").await[0], *kept);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

//! A message in quarantine is mended: other bytes are counted, and those that came are kept.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use uuid::Uuid;

use crate::{
    operator::{Operator, eaten},
    world::{World, created},
};

/// Holds: Bytes in quarantine are never changed in place.
#[tokio::test]
async fn corrected_bytes_are_counted_once_and_stand_beside_those_that_came() {
    let world = World::new(1).await;
    let unreadable = created().with_value("{\"not json\"");
    world.produce(&[unreadable.clone(), eaten(), created(), unreadable.clone()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let id = operator.id_at(0, "waiting").await;
    let mended = created().value.unwrap();
    let before = world.content().await;
    let tried = operator.try_correction(&id, &mended).await;
    let change = json!([{ "activityDate": "2026-11-20", "activityTypeCode": "ORDER_CREATED", "change": 1 }]);
    assert_eq!((tried.status, &tried.body["figures"], &tried.body["state"]), (200, &change, &json!("waiting")));
    assert_eq!(world.content().await, before, "a look changes nothing");
    let answer = operator.correct(&id, &mended, "a brace was missing").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, operator.0.get(&format!("/admin/quarantine/{id}")).await.body);
    let value = |name: &str| BASE64_STANDARD.decode(answer.body[name].as_str().unwrap()).unwrap();
    assert_eq!((Some(value("valueBase64")), value("correctedValueBase64")), (unreadable.value.clone(), mended.clone()));
    let who = (&answer.body["state"], &answer.body["resolvedBy"], &answer.body["resolution"]);
    assert_eq!(who, (&json!("counted"), &json!("anonymous"), &json!("a brace was missing")));
    assert_eq!(world.counted().await, 2);

    // Once: neither again, nor when its sender mends it too, nor as it came.
    assert_eq!(operator.correct(&id, &mended, "again").await.status, 409);
    world.produce(&[unreadable.clone().with_value(mended), unreadable]).await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (2, 1));
    assert_eq!(service.stop().await, Some(0));
    world.read_again().await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (2, 1));
    world.judge().await;
}

#[tokio::test]
async fn what_cannot_be_counted_is_422_and_changes_nothing() {
    let world = World::new(1).await;
    let counted = created();
    world.produce(&[eaten(), counted.clone()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let (id, before) = (operator.id_at(0, "waiting").await, world.content().await);
    let wrong = |field: &str, value: &str| created().with_field(field, value).value.unwrap();
    for (value, reason) in [
        (b"canary".to_vec(), "not_json"),
        (Vec::new(), "not_json"),
        (wrong("activityAt", "canary"), "bad_field"),
        (wrong("activityAt", "1999-01-01T00:00:00Z"), "bad_date"),
        (wrong("activityTypeCode", "ORDER_DRUNK"), "unknown_type"),
        (counted.with_field("activityAt", "2026-11-19T12:00:00Z").value.unwrap(), "conflicting_copy"),
    ] {
        assert_eq!(operator.try_correction(&id, &value).await.status, 422, "{reason}");
        let answer = operator.correct(&id, &value, "x").await;
        let error = &answer.body["errors"][0];
        assert_eq!((answer.status, &error["pointer"]), (422, &json!("/valueBase64")), "{answer:?}");
        let detail = error["detail"].as_str().unwrap();
        assert!(detail.contains(reason) && !detail.contains("canary"), "{detail}");
    }
    assert_eq!(operator.correct(&id, &created().value.unwrap(), " ").await.status, 422);
    assert_eq!(operator.correct(&Uuid::now_v7().to_string(), &created().value.unwrap(), "x").await.status, 404);
    assert_eq!(operator.correct("x", &created().value.unwrap(), "x").await.status, 404);
    assert_eq!(world.content().await, before);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

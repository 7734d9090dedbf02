use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use testing::{Signer, announcement, bad_authorizations, document};

use crate::world::{World, client, seconds};

#[tokio::test]
async fn a_bad_token_is_401_and_always_in_the_same_words() {
    let world = World::new(1).await;
    let signer = Signer::rs256("main");
    let service = world.setup().trusting(&signer).start().await;
    let client = client(&service);
    let mut answers = BTreeSet::new();
    for (name, given) in bad_authorizations(&signer) {
        let headers: Vec<_> = given.iter().map(|value| ("authorization", value.as_str())).collect();
        let mut answer = client.ask(Method::GET, "/activity-types", &headers, Vec::new()).await.unwrap();
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{name}");
        for of_the_request in ["requestId", "instance"] {
            assert!(answer.body[of_the_request].take().is_string());
        }
        answers.insert(answer.body.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(client.bearing(signer.token(json!({}))).get("/activity-types").await.status, 200);
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn every_operation_wants_the_scope_that_its_document_names() {
    let world = World::new(1).await;
    let signer = Signer::rs256("main");
    let service = world.setup().trusting(&signer).start().await;
    let document = client(&service).get("/openapi.json").await.body;
    document::every_operation_wants_its_scope(&client(&service), &signer, &document).await;
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn who_discards_or_replays_a_message_is_kept_by_the_name_in_the_token() {
    let world = World::new(1).await;
    let signer = Signer::es256("main");
    let service = world.setup().trusting(&signer).start().await;
    let by = |name: &str| client(&service).bearing(signer.token(json!({"sub": name})));
    let unknown = |code: &str| announcement(code, "2026-11-20T12:00:00.123456Z");
    world.produce(&[unknown("ORDER_LOST"), unknown("ORDER_FOUND"), unknown("ORDER_EATEN")]).await;
    testing::wait_until("they are in quarantine", seconds(30), async || world.quarantined().await == 3).await;

    let id_of = |list: &[Value], nth: usize| list[nth]["id"].as_str().unwrap().to_owned();
    let list = by("watcher").list("/admin/quarantine").await;
    let discarding = format!("/admin/quarantine/{}?reason=lost", id_of(&list, 0));
    let answer = by("discarder").ask(Method::DELETE, &discarding, &[], Vec::new()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    for (name, code) in [("first", "ORDER_FOUND"), ("second", "ORDER_EATEN")] {
        let body = json!({"activityTypeName": name}).to_string().into_bytes();
        let path = format!("/activity-types/{code}");
        let sent = by(name).ask(Method::PUT, &path, &[("content-type", "application/json")], body).await.unwrap();
        assert_eq!(sent.status, 201, "{sent:?}");
    }
    let actors = "SELECT string_agg(resolved_by, ',' ORDER BY resolved_by) FROM quarantine";
    let actors: String = sqlx::query_scalar(actors).fetch_one(&world.database.pool).await.unwrap();
    assert_eq!(actors, "discarder,first,second");
    world.judge().await;
}

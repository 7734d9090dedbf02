use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use testing::{Issuer, Service, Signer, bad_authorizations, document, order_body, wait_until};

use crate::world::{World, seconds};

/// The body of a problem, but for what only tells which request it answers.
fn words(mut body: Value) -> Value {
    for of_the_request in ["requestId", "instance"] {
        assert!(body[of_the_request].take().is_string());
    }
    body
}

async fn status_of(world: &World, service: &Service, token: &str) -> u16 {
    world.client(service).bearing(token).get("/orders").await.status
}

#[tokio::test]
async fn a_bad_token_is_401_on_every_path_and_always_in_the_same_words() {
    let world = World::new().await;
    let signer = Signer::rs256("main");
    let service = world.setup().trusting(&signer).start().await;
    let client = world.client(&service);
    let mut answers = BTreeSet::new();
    for (name, given) in bad_authorizations(&signer) {
        let headers: Vec<_> = given.iter().map(|value| ("authorization", value.as_str())).collect();
        let answer = client.ask(Method::GET, "/orders", &headers, Vec::new()).await.unwrap();
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{name}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{name}");
        answers.insert(words(answer.body).to_string());
    }
    for path in ["/orders", "/orders/OS000001-ORD", "/orders/customer/C", "/admin/messages", "/nonsense", "/docs2"] {
        for method in [Method::GET, Method::POST, Method::PATCH] {
            let answer = client.ask(method, path, &[], Vec::new()).await.unwrap();
            assert_eq!(answer.status, 401, "{path}");
            answers.insert(words(answer.body).to_string());
        }
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(status_of(&world, &service, &signer.token(json!({}))).await, 200);
    assert_eq!(service.probe("ready").await, Some(200), "the management port asks for nothing");
    let log = service.log().iter().map(Value::to_string).collect::<String>();
    assert!(!log.contains("eyJ"), "no token is logged");
    world.judge_nothing_placed().await;
}

/// Holds: No request reaches a handler without a caller who has the scope.
#[tokio::test]
async fn every_operation_wants_the_scope_that_its_document_names() {
    let world = World::new().await;
    let signer = Signer::eddsa("main");
    let service = world.setup().trusting(&signer).start().await;
    let client = world.client(&service);
    let document = client.get("/openapi.json").await.body;
    document::every_operation_wants_its_scope(&client, &signer, &document).await;
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn the_keys_of_an_issuer_may_come_late_change_and_stay_when_it_is_gone() {
    let world = World::new().await;
    let (old, new) = (Signer::es256("old"), Signer::rs256("new"));
    let issuer = Issuer::start(&[]).await;
    issuer.answer(500, "");
    let service = world.setup().trusting_issuer(issuer.url()).start().await;
    let client = world.client(&service).bearing(old.token(json!({})));
    let answer = client.get("/orders").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "no key was ever there");
    assert_eq!(world.client(&service).get("/orders").await.status, 401);

    issuer.publish(&[&old]);
    wait_until("the keys are found", seconds(60), async || client.get("/orders").await.status == 200).await;
    issuer.publish(&[&new]);
    let token = new.token(json!({}));
    wait_until("the new key is found", seconds(60), async || status_of(&world, &service, &token).await == 200).await;
    assert_eq!(client.get("/orders").await.status, 401, "the old key is none any more, remembered or not");
    drop(issuer);
    for _ in 0..3 {
        assert_eq!(status_of(&world, &service, &old.token(json!({}))).await, 401);
        assert_eq!(status_of(&world, &service, &token).await, 200);
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn customers_never_see_each_others_orders() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let service = world.setup().trusting(&signer).start().await;
    let everybody = world.client(&service).bearing(signer.token(json!({})));
    let names: Vec<_> = (0..20).map(|number| format!("Customer {number}")).collect();
    let mut orders = Vec::new();
    for name in &names {
        let own = json!({"sub": name, "customerRef": name});
        let client = world.client(&service).bearing(signer.token(own));
        let answer = client.post("/orders", &order_body(name)).await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        let order_ref = answer.body["orderRef"].as_str().unwrap().to_owned();
        world.history.add(&order_ref, name);
        orders.push((name, client, order_ref));
    }
    let nobody = words(everybody.get("/orders/OS999999-ORD").await.body);
    for (name, client, placed) in &orders {
        let path = |name: &str| format!("/orders/customer/{}", name.replace(' ', "%20"));
        let mut seen = vec![client.list("/orders").await, client.list("/orders?limit=1").await];
        seen.push(client.list(&path(name)).await);
        seen.push(client.list(&format!("/orders?status=New&customerRef={}", name.replace(' ', "+"))).await);
        for list in seen {
            let refs: Vec<_> = list.iter().map(|order| order["orderRef"].as_str().unwrap()).collect();
            assert_eq!(refs, [placed], "{name}");
        }
        assert_eq!(client.get(&format!("/orders/{placed}")).await.status, 200);
        for (other, _, theirs) in orders.iter().filter(|(other, ..)| other != name) {
            let order = format!("/orders/{theirs}");
            for (method, path) in [
                (Method::GET, order.clone()),
                (Method::POST, format!("{order}/cancel")),
                (Method::POST, format!("{order}/complete")),
            ] {
                let answer = client.ask(method, &path, &[], Vec::new()).await.unwrap();
                assert_eq!((answer.status, words(answer.body)), (404, nobody.clone()), "{name}: {path}");
            }
            let filtered = format!("/orders?customerRef={}", other.replace(' ', "%20"));
            for path in [path(other), filtered.clone(), format!("{filtered}&status=New&limit=1")] {
                assert_eq!(client.list(&path).await.len(), 0, "{name} sees {path}");
            }
            let answer = client.post("/orders", &order_body(other)).await.unwrap();
            assert_eq!(answer.status, 403, "{name} orders for {other}");
        }
    }
    let untouched = everybody.list("/orders?status=New").await;
    assert_eq!(untouched.len(), names.len(), "nothing was placed for others, and nothing of theirs changed");
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

/// Nor does the time an answer takes tell how many there are.
/// Holds: No order of another customer is read into memory.
#[tokio::test]
async fn the_list_of_another_customer_is_empty_without_a_look_at_the_orders() {
    let world = World::new().await;
    let signer = Signer::es256("main");
    let service = world.setup().trusting(&signer).start().await;
    let client = world.client(&service).bearing(signer.token(json!({"sub": "one", "customerRef": "One"})));
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    for path in ["/orders/customer/Other", "/orders?customerRef=Other", "/orders?customerRef=Other&status=New&limit=1"]
    {
        assert_eq!(client.list(path).await.len(), 0, "{path}");
    }
    assert_eq!(client.get("/orders/customer/One").await.status, 503, "the own one is looked for");
    lock.rollback().await.unwrap();
    world.judge_nothing_placed().await;
}

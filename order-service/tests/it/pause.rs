//! Announcing paused and resumed by operators.

use reqwest::Method;
use serde_json::{Value, json};
use testing::{Answer, Client, Kafka, Service, wait_until};

use crate::world::{World, seconds};

async fn ask(client: &Client, method: Method, body: &Value) -> Answer {
    let json = [("content-type", "application/json")];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    client.ask(method, "/admin/pause", &json, body).await.unwrap()
}

async fn is_told(service: &Service, paused: f64) {
    wait_until("the instance has seen it", seconds(3), async || service.metrics().await.sum("outbox_paused") == paused)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_announcing_is_paused_orders_are_taken_and_afterwards_each_is_announced_once() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 100);
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    client.load(50, 4).await;
    assert_eq!(ask(&client, Method::GET, &Value::Null).await.body["paused"], false);
    let begun = client
        .load_during(4, async { ask(&client, Method::PUT, &json!({"reason": "the topic is moved"})).await })
        .await;
    assert_eq!(begun.status, 200);
    let pause = begun.body;
    assert_eq!(
        (&pause["paused"], &pause["reason"], &pause["by"]),
        (&json!(true), &json!("the topic is moved"), &json!("anonymous"))
    );
    assert!(pause["since"].is_string() && pause["until"].is_null(), "{pause}");
    for service in [&one, &other] {
        is_told(service, 1.0).await;
    }
    // What was on its way lands.
    let in_flight = async |service: &Service| service.metrics().await.sum("outbox_in_flight_messages");
    wait_until("nothing is in flight", seconds(5), async || in_flight(&one).await + in_flight(&other).await == 0.0)
        .await;
    let published = world.count("published").await;
    client.route_to([one.api(), other.api()]);
    // More than both have room for.
    client.load(500, 8).await;
    assert_eq!(world.history.others(), [].into());
    assert_eq!(world.count("published").await, published, "nothing is announced");
    wait_until("the page tells it", seconds(5), async || {
        one.health().await["components"]["publisher"]["state"] == "waiting"
    })
    .await;
    assert_eq!(one.probe("ready").await, Some(200));

    // Neither a stop nor a kill ends the pause; what they had in memory is found by the others.
    assert_eq!(other.stop().await, Some(0));
    one.kill().await;
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    client.load(100, 4).await;
    for service in [&one, &other] {
        is_told(service, 1.0).await;
    }
    assert_eq!(world.count("published").await, published);

    let resumed = ask(&client, Method::DELETE, &Value::Null).await;
    assert_eq!((resumed.status, &resumed.body["paused"]), (200, &json!(false)));
    world.at_rest(seconds(20)).await;
    is_told(&one, 0.0).await;
    let audit = client.list("/admin/audit").await;
    let actions: Vec<_> = audit.iter().map(|one| (one["action"].as_str().unwrap(), one["reason"].as_str())).collect();
    assert_eq!(actions, [("announcing_resumed", None), ("announcing_paused", Some("the topic is moved"))]);
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_kafka_is_not_announced_when_it_answers_if_somebody_has_paused_meanwhile() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let world = World::with_kafka(&kafka).await;
    let setup = world.setup().set("publisher.max_in_flight", 5).set("publisher.batch_max_messages", 5);
    let service = setup.start().await;
    let client = world.client(&service);
    client.load(1, 1).await;
    world.at_rest(seconds(10)).await;
    proxy.hold();
    client.load(20, 4).await;
    let in_flight = async || service.metrics().await.sum("outbox_in_flight_messages");
    wait_until("a batch is in flight, the next one waits", seconds(5), async || in_flight().await == 5.0).await;
    assert_eq!(ask(&client, Method::PUT, &json!({"reason": "the topic is moved"})).await.status, 200);
    is_told(&service, 1.0).await;
    proxy.pass();
    wait_until("what was in flight lands", seconds(30), async || in_flight().await == 0.0).await;
    assert_eq!(world.count("published").await, 6, "it, and no other");
    assert_eq!(ask(&client, Method::DELETE, &Value::Null).await.status, 200);
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_pause_ends_by_itself_and_may_be_asked_for_again() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for (body, status) in [
        (json!({}), 422),
        (json!({"reason": " "}), 422),
        (json!({"reason": "x", "for": "soon"}), 422),
        (json!({"reason": "x", "for": "0s"}), 422),
        (json!({"reason": "x", "for": "40d"}), 422),
        (json!({"reason": "x", "until": "tomorrow"}), 422),
    ] {
        assert_eq!(ask(&client, Method::PUT, &body).await.status, status, "{body}");
    }
    let first = ask(&client, Method::PUT, &json!({"reason": "first", "for": "1h"})).await.body;
    let second = ask(&client, Method::PUT, &json!({"reason": "second", "for": "4s"})).await.body;
    assert_eq!((&second["reason"], &second["since"]), (&json!("second"), &first["since"]));
    assert!(second["until"].as_str() < first["until"].as_str());
    assert_eq!(ask(&client, Method::GET, &Value::Null).await.body, second);
    is_told(&service, 1.0).await;
    client.place_one().await;
    assert_eq!(world.count("unpublished").await, 1);
    world.at_rest(seconds(10)).await;
    assert_eq!(ask(&client, Method::GET, &Value::Null).await.body["paused"], false);

    // The same by the command line.
    let run = async |arguments: &[&str]| {
        let done = world.setup().run(arguments).await;
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
    };
    assert_eq!(run(&["resume"]).await, (0, "announcing was not paused\n".into()));
    assert_eq!(run(&["pause"]).await.0, 2, "a reason is required");
    assert_eq!(run(&["pause", "--reason", "x", "--for", "soon"]).await.0, 2);
    assert_eq!(run(&["pause", "--reason", "x"]).await, (0, "announcing is paused until somebody resumes\n".into()));
    is_told(&service, 1.0).await;
    assert_eq!(run(&["resume"]).await, (0, "announcing is resumed\n".into()));
    is_told(&service, 0.0).await;
    client.place_one().await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

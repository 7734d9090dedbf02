//! Counting paused and resumed by operators.

use reqwest::Method;
use serde_json::{Value, json};
use testing::{Answer, Service, wait_until};

use crate::{
    operator::Operator,
    world::{World, many, seconds},
};

async fn ask(operator: &Operator, method: Method, body: &Value) -> Answer {
    let json = [("content-type", "application/json")];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    operator.0.ask(method, "/admin/pause", &json, body).await.unwrap()
}

async fn is_told(service: &Service, paused: f64) {
    wait_until("the instance has seen it", seconds(3), async || {
        service.metrics().await.sum("activity_paused") == paused
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_counting_is_paused_the_group_keeps_its_members_and_afterwards_each_message_counts_once() {
    let world = World::new(4).await;
    let (one, other) = (world.setup().start().await, world.setup().start().await);
    let operator = Operator::of(&one);
    world.produce(&many(200)).await;
    world.at_rest().await;
    let assigned = async |service: &Service| service.metrics().await.sum("activity_assigned_partitions");
    wait_until("both have partitions", seconds(30), async || {
        (assigned(&one).await, assigned(&other).await) == (2.0, 2.0)
    })
    .await;

    // In the middle of counting.
    world.produce(&many(2000)).await;
    let begun = ask(&operator, Method::PUT, &json!({"reason": "a backup is restored"})).await;
    assert_eq!((begun.status, &begun.body["paused"]), (200, &json!(true)));
    for service in [&one, &other] {
        is_told(service, 1.0).await;
    }
    let in_hand = async |service: &Service| service.health().await["components"]["counting"]["busyForSeconds"] == 0;
    wait_until("counting is idle", seconds(10), async || in_hand(&one).await && in_hand(&other).await).await;
    let mut counted = world.counted().await;
    wait_until("what was in hand is counted", seconds(10), async || {
        let before = std::mem::replace(&mut counted, world.counted().await);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        before == counted
    })
    .await;
    world.produce(&many(500)).await;
    // Longer than the session of a member that does not answer.
    let until = std::time::Instant::now() + seconds(8);
    wait_until("the session would be over", seconds(20), async || std::time::Instant::now() > until).await;
    assert_eq!(world.counted().await, counted, "nothing is counted");
    assert_eq!((assigned(&one).await, assigned(&other).await), (2.0, 2.0), "they stay in the group");
    let health = one.health().await;
    assert_eq!(health["components"]["consumer"]["state"], "waiting", "{health}");
    assert_eq!(one.probe("ready").await, Some(200));

    // Neither a stop, nor a kill, nor partitions that move end the pause.
    other.kill().await;
    assert_eq!(one.stop().await, Some(0));
    let one = world.setup().start().await;
    is_told(&one, 1.0).await;
    wait_until("it has all partitions", seconds(30), async || assigned(&one).await == 4.0).await;
    assert_eq!(world.counted().await, counted);

    let operator = Operator::of(&one);
    assert_eq!(ask(&operator, Method::DELETE, &Value::Null).await.status, 200);
    world.at_rest().await;
    assert_eq!(world.counted().await, 2700);
    is_told(&one, 0.0).await;
    assert_eq!(operator.0.list("/admin/audit").await.len(), 2);

    // For a time, by the command line.
    let done = world.setup().run(&["pause", "--reason", "a test", "--for", "3s"]).await;
    assert_eq!(done.status.code(), Some(0));
    is_told(&one, 1.0).await;
    world.produce(&many(10)).await;
    world.at_rest().await;
    assert_eq!(ask(&operator, Method::GET, &Value::Null).await.body["paused"], false);
    let done = world.setup().run(&["resume"]).await;
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "counting was not paused\n");
    assert_eq!(one.stop().await, Some(0));
    world.judge().await;
}

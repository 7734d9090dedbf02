//! The messages of one order on the topic, in the order of its versions.

use reqwest::Method;
use testing::wait_until;
use uuid::Uuid;

use crate::world::{World, seconds};

/// Of each order that has ended, which of its two messages stands where.
async fn are_in_order(world: &World, orders: &[String]) {
    let messages = world.topic.dump().await;
    for order in orders {
        let of_order = messages.iter().filter(|one| one.key.as_deref() == Some(order.as_bytes()));
        let versions: Vec<_> = of_order
            .map(|one| serde_json::from_slice::<serde_json::Value>(one.value.as_deref().unwrap()).unwrap())
            .map(|value| value["orderVersion"].as_i64().unwrap())
            .collect();
        assert_eq!(versions, [1, 2], "{order}");
    }
}

#[tokio::test]
async fn what_another_instance_is_about_to_send_goes_before_what_comes_after_it() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.order", "strict");
    let slow = setup.clone().failpoint("publisher::lingers", "return(1500)").start().await;
    let quick = setup.start().await;
    let (places, ends) = (world.client(&slow), world.client(&quick));
    let mut orders = Vec::new();
    for _ in 0..20 {
        orders.push(places.place_one().await);
    }
    for order in &orders {
        assert_eq!(ends.change(order, "complete").await.unwrap().status, 200);
    }
    world.at_rest(seconds(30)).await;
    are_in_order(&world, &orders).await;
    assert_eq!((slow.stop().await, quick.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn behind_a_message_that_has_failed_the_end_of_its_order_waits_for_an_operator() {
    let world = World::new().await;
    world.topic.create(2, &[("max.message.bytes", "12000")]).await;
    world.left_behind(10, 900).await;
    let spoil = "UPDATE outbox SET tracestate = (
            SELECT string_agg(md5(n::text || message_ref), '') FROM generate_series(1, 600) n)
        WHERE order_id IN (5, 6) RETURNING message_ref";
    let spoilt: Vec<Uuid> = sqlx::query_scalar(spoil).fetch_all(&world.database.pool).await.unwrap();
    let orders = "SELECT order_ref(n) FROM generate_series(5, 7) AS n ORDER BY n";
    let orders: Vec<String> = sqlx::query_scalar(orders).fetch_all(&world.database.pool).await.unwrap();
    let setup = world.setup().set("publisher.order", "strict").set("publisher.max_failures", 1);
    let service = setup.start().await;
    let client = world.client(&service);
    wait_until("both have failed", seconds(20), async || world.count("failed").await == 2).await;
    for order in &orders {
        assert_eq!(client.change(order, "complete").await.unwrap().status, 200);
    }
    wait_until("that of another order is sent", seconds(20), async || world.count("published").await == 9).await;
    let unsettled = "SELECT count(*) FROM instances WHERE settled_to(instance_id) < (
        SELECT max(seq) FROM outbox WHERE instance = instance_id)";
    wait_until("no log waits with them", seconds(20), async || world.database.number(unsettled).await == 0).await;
    // Whoever comes next keeps to it.
    service.kill().await;
    let service = setup.start().await;
    let client = world.client(&service);
    client.place_one().await;
    wait_until("what is placed now is sent", seconds(20), async || world.count("published").await == 10).await;
    assert_eq!((world.count("failed").await, world.count("unpublished").await), (2, 2));

    let given_up = format!("/admin/messages/{}?reason=a+test", spoilt[1]);
    assert_eq!(client.ask(Method::DELETE, &given_up, &[], Vec::new()).await.unwrap().status, 200);
    wait_until("nothing is to come before its end", seconds(40), async || world.count("published").await == 11).await;
    world.topic.set("max.message.bytes", "100000").await;
    let again = format!("/admin/messages/{}/retry", spoilt[0]);
    assert_eq!(client.ask(Method::POST, &again, &[], Vec::new()).await.unwrap().status, 202);
    world.at_rest(seconds(60)).await;
    are_in_order(&world, &[orders[0].clone(), orders[2].clone()]).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.failed([spoilt[1]])).await;
}

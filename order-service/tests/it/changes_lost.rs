//! Changes whose answer is lost, and processes that die while they make them.

use std::time::{Duration, Instant};

use testing::{Client, Proxy, wait_until};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    instances_killed::unpublished_of,
    world::{World, identity, seconds},
};

async fn placed(client: &Client, count: usize) -> Vec<String> {
    let mut orders = Vec::new();
    for _ in 0..count {
        orders.push(client.place_one().await);
    }
    orders
}

/// Completes or cancels them all at once, again and again until each answer is 200.
async fn ended(client: &Client, orders: &[String]) {
    let mut changes = JoinSet::new();
    for (number, order) in orders.iter().cloned().enumerate() {
        let (client, change) = (client.clone(), ["complete", "cancel"][number % 2]);
        changes.spawn(async move {
            let end = Instant::now() + seconds(30);
            while !client.change(&order, change).await.is_ok_and(|answer| answer.status == 200) {
                assert!(Instant::now() < end, "{order} is not changed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    changes.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_commit_is_not_answered_on_the_way_is_made_and_announced_once() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    for change in ["complete", "cancel"] {
        for order in placed(&client, 3).await {
            proxy.swallow_answer_with(identity(&service).to_be_bytes());
            assert_eq!(client.change(&order, change).await.unwrap().status, 200);
            assert!(proxy.has_swallowed());
        }
    }
    world.at_rest(seconds(20)).await;
    assert_eq!(world.count("published").await, 12);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_lost_attempt_is_still_under_way_waits_for_it() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    let order = client.place_one().await;
    let held = world.insertions_wait("outbox", "new.activity_type_code = 'ORDER_COMPLETED'").await;
    let changing = {
        let (client, order) = (client.clone(), order.clone());
        tokio::spawn(async move { client.change(&order, "complete").await.unwrap() })
    };
    world.a_statement_waits().await;
    proxy.cut();
    // Time for its repetition to wait behind it.
    client.load(20, 4).await;
    held.rollback().await.unwrap();
    // On a slow machine the caller may have been told before that it is not known yet.
    assert!([200, 503].contains(&changing.await.unwrap().status));
    world.at_rest(seconds(20)).await;
    // The connection for reads was cut as well, and whoever meets it first is told to ask again.
    wait_until("it is answered", seconds(5), async || client.change(&order, "complete").await.unwrap().status == 200)
        .await;
    // Where the caller was told so, it may be this one that found out.
    world.at_rest(seconds(20)).await;
    assert_eq!(world.count("published").await, 22);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_reported_as_lost_are_made_once_each_by_whichever_of_two_instances() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 20).failpoint("change::answer_lost", "30%return");
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    client.route_to([one.api(), other.api()]);
    let orders = placed(&client, 60).await;
    ended(&client, &orders).await;
    world.at_rest(seconds(20)).await;
    assert_eq!(world.count("published").await, 120);
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

/// Holds: No status changes without its message, and no message tells of a change that was not made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_step_of_a_change_another_instance_makes_or_announces_it() {
    for point in ["change::before", "change::committed", "change::announced"] {
        let world = World::new().await;
        let mut dying = world.setup().failpoint(point, "7*off->return").start().await;
        let other = world.setup().start().await;
        let (on_dying, client) = (world.client(&dying), world.client(&other));
        let orders = placed(&client, 20).await;
        let killed = async {
            for order in &orders {
                if on_dying.change(order, "complete").await.is_err() {
                    break;
                }
            }
            dying.ended(seconds(20)).await
        };
        assert_eq!(killed.await.code(), None, "{point}: by a signal");
        let in_flight: Vec<Uuid> = unpublished_of(&world, &dying).await;
        world.at_rest(seconds(20)).await;
        for order in &orders {
            assert_eq!(client.change(order, "complete").await.unwrap().status, 200, "{point}");
        }
        world.at_rest(seconds(20)).await;
        assert_eq!(other.stop().await, Some(0));
        world.judge_with(|checker| checker.in_flight(in_flight)).await;
    }
}

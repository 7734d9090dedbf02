//! Keys and placements whose answer is lost, or whose process dies.

use std::time::{Duration, Instant};

use testing::{Client, Proxy, order_body, wait_until};
use tokio::task::JoinSet;

use crate::world::{World, identity, seconds};

/// Places orders under as many keys at once, each again and again until the answer is 201, and then
/// once more.
async fn placed_under(client: &Client, keys: std::ops::Range<u32>) {
    let mut callers = JoinSet::new();
    for number in keys {
        let (client, key, body) = (client.clone(), format!("k-{number}"), order_body(&format!("C-{number}")));
        callers.spawn(async move {
            for _ in 0..2 {
                let end = Instant::now() + seconds(30);
                while !client.place_under(&key, &body).await.is_ok_and(|answer| answer.status == 201) {
                    assert!(Instant::now() < end, "nothing is placed under {key}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    callers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_placement_whose_commit_is_not_answered_on_the_way_does_not_take_its_own_key_for_anothers() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    for number in 0..5 {
        proxy.swallow_answer_with(identity(&service).to_be_bytes());
        let body = order_body(&format!("single-{number}"));
        let answer = client.place_under(&format!("single-{number}"), &body).await.unwrap();
        assert_eq!((answer.status, answer.header("idempotency-replayed")), (201, ""));
        assert!(proxy.has_swallowed());
    }
    // In company with others, with keys and without.
    for round in 0..5 {
        proxy.swallow_answer_with(identity(&service).to_be_bytes());
        tokio::join!(placed_under(&client, round * 20..round * 20 + 20), client.load(20, 20));
    }
    assert_eq!(world.history.others(), [].into());
    assert_eq!(world.database.number("SELECT count(*) FROM orders").await, 205);
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyed_placement_whose_lost_attempt_is_still_under_way_waits_for_it_alone() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let setup = world.setup().set("database.url", world.database.url_through(proxy.port()));
    let service = setup.set("placement.tasks", 2).start().await;
    let client = world.client(&service);
    let held = world.insertions_wait("orders", "new.customer_ref = 'slow'").await;
    let placing = {
        let client = client.clone();
        tokio::spawn(async move { client.place_under("k", &order_body("slow")).await.unwrap() })
    };
    world.a_statement_waits().await;
    proxy.cut();
    // Its repetitions find its key in use, and the other task goes on.
    client.load(20, 4).await;
    assert_eq!(world.history.others(), [].into());
    let other = {
        let client = client.clone();
        tokio::spawn(async move { client.place_under("k", &order_body("other")).await.unwrap() })
    };
    held.rollback().await.unwrap();
    // On a slow machine the caller may have been told before that it is not known yet.
    assert!([201, 503].contains(&placing.await.unwrap().status));
    assert_eq!(other.await.unwrap().status, 422);
    world.at_rest(seconds(20)).await;
    assert_eq!(world.database.number("SELECT count(*) FROM orders").await, 21);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyed_placements_reported_as_lost_are_one_order_each_on_whichever_instance_they_are_repeated() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 50).failpoint("placement::answer_lost", "30%return");
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    client.route_to([one.api(), other.api()]);
    placed_under(&client, 0..100).await;
    world.at_rest(seconds(30)).await;
    assert_eq!(world.database.number("SELECT count(*) FROM orders").await, 100);
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_step_of_a_keyed_placement_the_repeated_request_gets_the_one_order_elsewhere() {
    for point in ["placement::before", "placement::committed", "placement::announced"] {
        let world = World::new().await;
        let mut dying = world.setup().failpoint(point, "5*off->return").start().await;
        let other = world.setup().start().await;
        let client = world.client(&dying);
        client.route_to([dying.api(), other.api()]);
        let mut keys = 0;
        let ended = loop {
            placed_under(&client, keys..keys + 4).await;
            keys += 4;
            if let Ok(ended) = tokio::time::timeout(Duration::from_millis(1), dying.ended(seconds(60))).await {
                break ended;
            }
            assert!(keys < 400, "{point} is not met");
        };
        assert_eq!(ended.code(), None, "{point}: by a signal");
        world.at_rest(seconds(20)).await;
        assert_eq!(world.database.number("SELECT count(*) FROM orders").await, i64::from(keys), "{point}");
        assert_eq!(other.stop().await, Some(0));
        // What the dead one had just handed over may come twice.
        world.judge_with(testing::Checker::duplicates_allowed).await;
    }
}

/// Holds: No message enters the queue that was placed under an identity which has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_adopted_before_its_lost_answer_is_made_good_is_in_one_memory_only() {
    let world = World::new().await;
    // The repetition comes late. Meanwhile the identity is replaced, and the new one adopts the log.
    let setup = world.setup().failpoint("placement::answer_lost", "1*return");
    let service = setup.failpoint("placement::before", "1*off->1*sleep(2500)").start().await;
    let client = world.client(&service);
    let placing = {
        let client = client.clone();
        tokio::spawn(async move { drop(client.place().await) })
    };
    let placed = "SELECT count(*) FROM orders";
    wait_until("it is placed", seconds(10), async || world.database.number(placed).await == 1).await;
    world.end(identity(&service)).await;
    wait_until("the identity is replaced", seconds(10), async || service.has_logged("took a new identity")).await;
    world.at_rest(seconds(20)).await;
    placing.await.unwrap();
    // The repetition is over when its task places again.
    client.load(20, 8).await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: What a batch has placed is known, though another order of it was placed before and its identity has ended since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_an_order_that_was_placed_before_knows_the_others_though_its_identity_has_ended() {
    let world = World::new().await;
    let setup = world.setup().set("placement.tasks", 1);
    let service = setup.failpoint("placement::placed", "1*off->2*sleep(900)->off").start().await;
    let client = world.client(&service);
    let body = order_body("C-before");
    let before = client.place_under("k", &body).await.unwrap();
    assert_eq!(before.status, 201);
    let one = |client: Client| tokio::spawn(async move { client.place().await.unwrap() });
    let orders = "SELECT count(*) FROM orders";
    // While this one is under way the next batch fills.
    let first = one(client.clone());
    wait_until("it is placed", seconds(10), async || world.database.number(orders).await == 2).await;
    let again = {
        let (client, body) = (client.clone(), body.clone());
        tokio::spawn(async move { client.place_under("k", &body).await.unwrap() })
    };
    let fresh = one(client.clone());
    wait_until("the other is placed", seconds(10), async || world.database.number(orders).await == 3).await;
    world.end(identity(&service)).await;
    assert_eq!(first.await.unwrap().status, 201);
    let (again, fresh) = (again.await.unwrap(), fresh.await.unwrap());
    assert_eq!((again.status, &again.body["orderRef"]), (201, &before.body["orderRef"]));
    assert_eq!(fresh.status, 201, "{fresh:?}");
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

//! Requests that are repeated under an `Idempotency-Key`.

use order_service::idempotency::Key;
use reqwest::Method;
use serde_json::{Value, json};
use shared::web::auth::Caller;
use testing::{Answer, Client, order_body, wait_until};
use tokio::task::JoinSet;

use crate::world::{World, seconds};

fn replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == "true"
}

async fn post(client: &Client, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    client.ask(Method::POST, "/orders", &headers, serde_json::to_vec(body).unwrap()).await.unwrap()
}

async fn orders(world: &World) -> i64 {
    world.database.number("SELECT count(*) FROM orders").await
}

#[tokio::test]
async fn the_same_request_under_the_same_key_gives_the_same_answer_on_any_instance() {
    let world = World::new().await;
    let (one, other) = (world.setup().start().await, world.setup().start().await);
    let (client, elsewhere) = (world.client(&one), world.client(&other));
    let body = order_body("C-1");
    let mut invalid = body.clone();
    invalid["orderItems"] = json!([]);
    assert_eq!(client.place_under("k-1", &invalid).await.unwrap().status, 422, "only 201 is remembered");
    let first = client.place_under("k-1", &body).await.unwrap();
    assert_eq!((first.status, replayed(&first)), (201, false));
    let order = first.body["orderRef"].as_str().unwrap();
    // Understood alike, so the same request.
    let mut alike = body.clone();
    alike["customerRef"] = json!("  C-1 ");
    for change in [None, Some("complete")] {
        if let Some(change) = change {
            assert_eq!(client.change(order, change).await.unwrap().status, 200);
        }
        for (client, body) in [(&client, &body), (&elsewhere, &body), (&elsewhere, &alike)] {
            let again = client.place_under("k-1", body).await.unwrap();
            assert_eq!((again.status, replayed(&again)), (201, true));
            assert_eq!((&again.bytes, again.header("location")), (&first.bytes, first.header("location")));
        }
        let quoted = post(&elsewhere, &[("idempotency-key", "\"k-1\"")], &body).await;
        assert_eq!((quoted.status, &quoted.bytes), (201, &first.bytes));
    }
    for other in ["customerRef", "quantity", "productId", "lines"] {
        let mut changed = body.clone();
        match other {
            "customerRef" => changed["customerRef"] = json!("C-2"),
            "quantity" => changed["orderItems"][0]["quantity"] = json!(3),
            "productId" => changed["orderItems"][0]["productId"] = changed["orderItems"][1]["productId"].clone(),
            _ => drop(changed["orderItems"].as_array_mut().unwrap().pop()),
        }
        let answer = post(&elsewhere, &[("idempotency-key", "k-1")], &changed).await;
        assert_eq!(answer.status, 422, "{other}");
        assert!(!answer.body.to_string().contains("k-1"), "no value of a request: {}", answer.body);
    }
    assert_eq!(orders(&world).await, 1);
    for key in ["k-2", "K-1", "k-1 ".trim_end().repeat(2).as_str()] {
        let customer = format!("C-{key}");
        let other = client.place_under(key, &order_body(&customer)).await.unwrap();
        assert_eq!((other.status, replayed(&other)), (201, false), "{key}");
    }
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_malformed_key_is_refused_and_two_as_well() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let (body, long) = (order_body("C-1"), "x".repeat(256));
    for key in ["", "\"\"", "a b", "\"a", "a\tb", &long] {
        let answer = post(&client, &[("idempotency-key", key)], &body).await;
        assert_eq!(answer.status, 400, "{key}: {answer:?}");
    }
    assert_eq!(post(&client, &[("idempotency-key", "a"), ("idempotency-key", "a")], &body).await.status, 400);
    world.judge_nothing_placed().await;
}

/// Holds: No key is without its order, and no order has a key that gives another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_requests_at_once_on_two_instances_give_one_order_and_equal_answers() {
    let world = World::new().await;
    let (one, other) = (world.setup().start().await, world.setup().start().await);
    let client = world.client(&one);
    client.route_to([one.api(), other.api()]);
    for round in 0..10 {
        let (key, body) = (format!("round-{round}"), order_body(&format!("C-{round}")));
        let mut requests = JoinSet::new();
        for _ in 0..16 {
            let (client, key, body) = (client.clone(), key.clone(), body.clone());
            requests.spawn(async move {
                loop {
                    let answer = client.place_under(&key, &body).await.unwrap();
                    if answer.status != 409 {
                        return answer;
                    }
                    assert_eq!(answer.header("retry-after"), "1");
                }
            });
        }
        let answers = requests.join_all().await;
        assert!(answers.iter().all(|answer| answer.status == 201 && answer.bytes == answers[0].bytes), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !replayed(answer)).count(), 1);
    }
    assert_eq!(orders(&world).await, 10);
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

/// The lock that whoever places under a key of the anonymous caller holds.
fn lock_of(key: &str) -> i64 {
    Key::parse(key.as_bytes(), &Caller::anonymous()).unwrap().lock()
}

/// Holds: No placement waits for somebody's key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_in_use_is_waited_for_2_s_at_most_and_holds_up_nobody_else() {
    let world = World::new().await;
    let service = world.setup().set("placement.tasks", 1).start().await;
    let client = world.client(&service);
    let mut first = world.database.pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock($1 # 'idempotency_keys'::regclass::oid::bigint)";
    sqlx::query(lock).bind(lock_of("k")).execute(&mut *first).await.unwrap();
    let body = order_body("C-1");
    let second = {
        let (client, body) = (client.clone(), body.clone());
        tokio::spawn(async move { client.place_under("k", &body).await.unwrap() })
    };
    client.load_during(8, async { assert_eq!(second.await.unwrap().status, 409) }).await;
    assert_eq!(world.history.others(), [].into());
    assert!(world.history.acknowledged().len() > 50, "{}", world.history.acknowledged().len());
    assert!(world.history.take_slowest() < seconds(2), "a neighbour waited for the key");

    let third = {
        let (client, body) = (client.clone(), body.clone());
        tokio::spawn(async move { client.place_under("k", &body).await.unwrap() })
    };
    first.rollback().await.unwrap();
    let third = third.await.unwrap();
    assert_eq!((third.status, replayed(&third)), (201, false));
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_comes_several_times_in_one_batch_gives_one_order() {
    let world = World::new().await;
    let service = world.setup().set("placement.tasks", 1).start().await;
    let client = world.client(&service);
    // Placement waits for a lock, so that what comes meanwhile becomes one batch.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let let_go = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        wait_until("a placement waits", seconds(10), async || world.database.number(waiting).await > 0).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        lock.rollback().await.unwrap();
    };
    let mut requests = JoinSet::new();
    for number in 0..12 {
        let client = client.clone();
        let (key, body) = (
            format!("k-{}", number % 3),
            json!({"customerRef": format!("C-{}", number % 3),
            "orderItems": [{"productId": uuid::Uuid::nil(), "quantity": 1}]}),
        );
        requests.spawn(async move { client.place_under(&key, &body).await.unwrap().status });
    }
    let (statuses, (), ()) = tokio::join!(requests.join_all(), client.load(10, 10), let_go);
    assert_eq!(statuses, [201; 12]);
    assert_eq!(world.history.others(), [].into());
    assert_eq!(orders(&world).await, 13);
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_key_that_has_expired_is_usable_again_and_is_purged_in_the_end() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for number in 0..50 {
        let answer = client.place_under(&format!("old-{number}"), &order_body(&format!("old-{number}"))).await.unwrap();
        assert_eq!(answer.status, 201);
    }
    let age = "UPDATE idempotency_keys SET placed_at = placed_at - interval '7 days' + interval '";
    world.database.execute(&format!("{age}1 minute'")).await;
    let body = order_body("new-0");
    assert_eq!(post(&client, &[("idempotency-key", "old-0")], &body).await.status, 422, "not yet expired");
    world.database.execute("UPDATE idempotency_keys SET placed_at = placed_at - interval '1 minute'").await;
    for repeated in [false, true] {
        let answer = post(&client, &[("idempotency-key", "old-0")], &body).await;
        assert_eq!((answer.status, replayed(&answer)), (201, repeated));
        world.history.add(answer.body["orderRef"].as_str().unwrap(), "new-0");
    }
    assert_eq!(orders(&world).await, 51);
    let keys = "SELECT count(*) FROM idempotency_keys";
    assert_eq!(world.database.number(keys).await, 50);
    assert_eq!(service.stop().await, Some(0));

    let setup = world.setup().set("retention.every", "100ms").set("retention.batch_size", 10);
    let (one, other) = (setup.start().await, setup.start().await);
    wait_until("what has expired is gone", seconds(30), async || world.database.number(keys).await == 1).await;
    let answer = post(&world.client(&other), &[("idempotency-key", "old-0")], &body).await;
    assert!(replayed(&answer), "what has not expired stays: {answer:?}");
    world.at_rest(seconds(20)).await;
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn an_order_that_the_database_refuses_is_not_remembered() {
    let world = World::new().await;
    world.database.execute("ALTER TABLE orders ADD CONSTRAINT no_bad_ones CHECK (customer_ref NOT LIKE 'bad%')").await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let body = order_body("bad");
    assert_eq!(client.place_under("k", &body).await.unwrap().status, 500);
    assert_eq!(world.database.number("SELECT count(*) FROM idempotency_keys").await, 0);
    world.database.execute("ALTER TABLE orders DROP CONSTRAINT no_bad_ones").await;
    let placed = client.place_under("k", &body).await.unwrap();
    assert_eq!((placed.status, replayed(&placed)), (201, false));
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

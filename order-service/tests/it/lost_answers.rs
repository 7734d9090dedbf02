//! The database has done what it was asked, and the answer is lost.

use serde_json::json;
use testing::{Kafka, Proxy, order_body, wait_until};

use crate::world::{World, identity, seconds};

#[tokio::test]
async fn a_commit_whose_answer_is_lost_on_the_way_gives_one_order_and_one_message() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    for concurrency in [1, 1, 1, 8, 8, 32] {
        // Nothing but the rows of its own log has it.
        proxy.swallow_answer_with(identity(&service).to_be_bytes());
        client.load(concurrency, usize::try_from(concurrency).unwrap()).await;
        assert!(proxy.has_swallowed());
    }
    assert_eq!(world.history.others(), [].into(), "every caller gets an answer, the answer 201");
    assert_eq!(world.database.number("SELECT count(*) FROM orders").await, 51);
    world.at_rest(seconds(10)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_placement_reported_as_lost_is_not_repeated_as_a_second_order() {
    let world = World::new().await;
    let service = world.setup().failpoint("placement::answer_lost", "30%return").start().await;
    let client = world.client(&service);
    client.load(300, 8).await;
    world.at_rest(seconds(10)).await;
    // Some may be lost too often for a caller to wait.
    assert!(world.history.others().keys().all(|status| status == "503"), "{:?}", world.history.others());
    assert_eq!(world.database.number("SELECT count(*) FROM orders").await, 300, "every one is placed in the end");
    world.judge().await;
}

#[tokio::test]
async fn an_adoption_whose_answer_is_lost_on_the_way_leaves_no_message_behind_and_sends_none_twice() {
    let world = World::new().await;
    world.left_behind(500, 900).await;
    let proxy = Proxy::before(world.database.address()).await;
    let setup = world.setup().set("database.url", world.database.url_through(proxy.port()));
    let setup = setup.set("database.session_url", world.database.url()).set("reload.page_size", 100);
    // The adoption alone answers with a row of one column, the log's name; then each of its pages names it.
    proxy.swallow_answer_with([&[0, 1, 0, 0, 0, 8], 900_i64.to_be_bytes().as_slice()].concat());
    let service = setup.start().await;
    let client = world.client(&service);
    wait_until("the answer to the adoption is lost", seconds(10), async || proxy.has_swallowed()).await;
    let adopted = "SELECT count(*) FROM instances WHERE adopter IS NOT NULL";
    assert_eq!(world.database.number(adopted).await, 1);
    proxy.swallow_answer_with(900_i64.to_be_bytes());
    client.load(200, 4).await;
    world.at_rest(seconds(10)).await;
    assert!(proxy.has_swallowed() && !service.has_logged("took a new identity"), "a fact said twice is no doubt");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn an_instance_goes_on_after_retries_reported_as_lost_in_the_middle_of_load() {
    let world = World::new().await;
    // Overflows all the time: its log is read all the time.
    let setup = world.setup().set("publisher.queue_capacity", 50);
    let service = setup.failpoint("retry::answer_lost", "5*return").start().await;
    let client = world.client(&service);
    client
        .load_during(32, async {
            // Each new identity takes it on, and loses the answer again.
            world.left_to_be_retried().await;
            let ended = "SELECT count(*) FROM instances WHERE ended_at IS NOT NULL AND started_at < ended_at";
            wait_until("it takes several identities", seconds(20), async || world.database.number(ended).await > 2)
                .await;
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert_eq!(world.history.others(), [].into());
    world.judge().await;
}

#[tokio::test]
async fn messages_in_memory_when_the_identity_is_replaced_are_sent_once_all_the_same() {
    let world = World::new().await;
    // They wait in a batch that fills, while the new identity reads them in the log of the old one.
    let service = world.setup().failpoint("publisher::lingers", "return(2000)").start().await;
    let client = world.client(&service);
    client.load(50, 8).await;
    world.end(identity(&service)).await;
    wait_until("the identity is replaced", seconds(2), async || service.has_logged("took a new identity")).await;
    world.at_rest(seconds(15)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_whose_acknowledgement_is_lost_on_the_way_are_on_the_topic_once() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let world = World::with_kafka(&kafka).await;
    let service = world.setup().set("publisher.max_failures", 1).start().await;
    let client = world.client(&service);
    client
        .load_during(8, async {
            for _ in 0..12 {
                proxy.swallow_answer_to_produce();
                wait_until("an acknowledgement is lost", seconds(20), async || proxy.has_swallowed()).await;
            }
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn an_order_the_database_refuses_takes_none_of_its_neighbours_with_it() {
    let world = World::new().await;
    world.database.execute("ALTER TABLE orders ADD CONSTRAINT no_bad_ones CHECK (customer_ref NOT LIKE 'bad%')").await;
    let service = world.setup().set("placement.tasks", 1).start().await;
    let client = world.client(&service);

    // Placement waits for a lock, so that the others wait in the line and become one batch.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let let_go = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        wait_until("a placement waits", seconds(2), async || world.database.number(waiting).await > 0).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        lock.rollback().await.unwrap();
    };
    let bad = async {
        let (one, other) = (order_body("bad 1"), order_body("bad 2"));
        tokio::join!(client.post("/orders", &one), client.post("/orders", &other))
    };
    let ((), (one, other), ()) = tokio::join!(client.load(40, 40), bad, let_go);
    for answer in [one.unwrap(), other.unwrap()] {
        assert_eq!(answer.status, 500);
        assert_eq!(answer.body["status"], json!(500));
        assert!(!answer.body.to_string().contains("no_bad_ones"), "no internal text: {}", answer.body);
    }
    assert_eq!(world.history.others(), [].into(), "every neighbour is placed");
    world.at_rest(seconds(10)).await;
    world.judge().await;
}

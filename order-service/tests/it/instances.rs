//! Several instances on one table: starting at once, paused, and ended while rows still come.

use std::time::{Duration, Instant};

use testing::{Service, Topic, UNPUBLISHED, order_body, wait_until};

use crate::world::{TAKEN_OVER, World, binary, identity, insertion, seconds};

/// Holds: A log is read by the one identity that has adopted it, and by nobody while its writer lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_instances_that_start_at_once_send_what_a_dead_one_left_once() {
    let world = World::new().await;
    world.topic.create(6, &[]).await;
    world.left_behind(10_000, 900).await;
    let setup = world.setup().set("reload.page_size", 300);
    let mut instances = [setup.spawn(), setup.spawn(), setup.spawn(), setup.spawn()];
    for instance in &mut instances {
        instance.ready().await;
    }
    world.at_rest(seconds(20)).await;
    let adopters =
        "SELECT count(*) FROM instances WHERE instance_id = 900 AND adopter IS NOT NULL AND done_at IS NOT NULL";
    wait_until("its log is done", seconds(5), async || world.database.number(adopters).await == 1).await;
    assert_eq!(instances.iter().filter(|one| one.has_logged(TAKEN_OVER)).count(), 1, "an identity ends once");
    for instance in instances {
        assert_eq!(instance.stop().await, Some(0));
    }
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_stopped_for_10_s_in_the_middle_of_sending_keeps_its_messages_and_sends_none_twice() {
    let world = World::new().await;
    let stopped = world.setup().set("reload.page_size", 200).set("publisher.queue_capacity", 400).start().await;
    world.left_by_ended(20_000, 0).await;
    let me = identity(&stopped);
    let adopted = format!(
        "SELECT count(*) FROM {UNPUBLISHED} AS m JOIN instances i ON i.instance_id = m.instance WHERE i.adopter = {me}"
    );
    wait_until("it is in the middle of sending", seconds(10), async || world.count("published").await > 100).await;
    // It is stopped with a page under way, whose answer it finds when it wakes up.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let reading = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%FROM outbox WHERE instance%'";
    wait_until("a page waits", seconds(10), async || world.database.number(reading).await > 0).await;
    stopped.pause();
    lock.rollback().await.unwrap();
    let other = world.setup().start().await;
    let active = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name LIKE 'order-service%' AND state = 'active'";
    wait_until("the stopped one's statements are done", seconds(5), async || world.database.number(active).await == 0)
        .await;
    let kept = world.database.number(&adopted).await;
    assert!(kept > 0, "it had nothing left to send");

    let begun = Instant::now();
    let client = world.client(&other);
    while begun.elapsed() < seconds(10) {
        client.load(100, 8).await;
        assert_eq!(world.database.number(&adopted).await, kept, "nobody touches what it has");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.history.others(), [].into());
    let others =
        format!("SELECT count(*) FROM outbox_messages WHERE instance = {} AND state = 'published'", identity(&other));
    assert!(world.database.number(&others).await > 500, "the other one did not go on");
    stopped.resume();
    world.at_rest(seconds(10)).await;
    assert!(!other.has_logged(TAKEN_OVER), "a pause is not an end");
    assert_eq!(identity(&stopped), me);
    assert_eq!((stopped.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_again_and_again_under_load_instances_send_nothing_twice_and_end_nobody() {
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 200);
    let (one, other) = (setup.start().await, setup.start().await);
    let client = world.client(&one);
    client.route_to([one.api(), other.api()]);
    client
        .load_during(16, async {
            for round in 0..6 {
                let paused = if round % 2 == 0 { &one } else { &other };
                paused.pause();
                // About the time that others wait before they take over.
                tokio::time::sleep(Duration::from_millis(500 + 250 * round)).await;
                paused.resume();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert!(!one.has_logged(TAKEN_OVER) && !other.has_logged(TAKEN_OVER));
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn rows_of_an_ended_identity_that_are_committed_late_are_sent_within_2_s() {
    let world = World::new().await;
    let killed = world.setup().start().await;
    let stopped = world.setup().start().await;
    let other = world.setup().start().await;
    // Of one that others end, and of one that ends itself.
    let mut late = Vec::new();
    for log in [identity(&killed), identity(&stopped)] {
        let mut transaction = world.database.pool.begin().await.unwrap();
        sqlx::raw_sql(&insertion(20, log)).execute(&mut *transaction).await.unwrap();
        late.push(transaction);
    }
    killed.kill().await;
    assert_eq!(stopped.stop().await, Some(0));
    let living = "SELECT count(*) FROM instances WHERE ended_at IS NULL";
    wait_until("both have ended", seconds(3), async || world.database.number(living).await == 1).await;
    // Their logs are read to the end, and nothing of theirs is there.
    let early = "sending what an ended instance has left in its log";
    let adopted = async || other.log().iter().filter(|line| line["message"] == early).count() == 2;
    wait_until("both logs are adopted", seconds(5), adopted).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let done = "SELECT count(*) FROM instances WHERE closed_at IS NOT NULL";
    assert_eq!(world.database.number(done).await, 0, "no log is closed while a transaction may still commit to it");
    for transaction in late {
        assert_eq!(world.count("unpublished").await, 0);
        transaction.commit().await.unwrap();
        world.at_rest(seconds(2)).await;
    }
    world.remember_left().await;
    assert_eq!(world.count("published").await, 40);
    assert_eq!(other.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_installations_in_one_database_know_nothing_of_one_another() {
    let world = World::new().await;
    let (owner, service) = (world.database.owner_url(), world.database.url());
    let in_schema = |url: &str, schema: &str| format!("{url}?options=-c%20search_path%3D{schema}");
    let topics = [Topic::new(2, &[]).await, Topic::new(2, &[]).await];
    let mut running = Vec::new();
    for (schema, topic) in ["one", "two"].into_iter().zip(&topics) {
        world.database.grant_in(schema).await;
        let migrated =
            binary().set("database.url", in_schema(&owner, schema)).run(&["migrate", "--new-installation"]).await;
        assert_eq!(migrated.status.code(), Some(0), "{}", String::from_utf8_lossy(&migrated.stderr));
        world.database.grant_in(schema).await;
        // As in the first one, nothing is permitted that the service does not do.
        let permitted = format!("SELECT has_table_privilege('test_service', '{schema}.outbox', 'UPDATE')::int::bigint");
        assert_eq!(world.database.number(&permitted).await, 0);
        let setup = world.setup().set("database.url", in_schema(&service, schema)).set("kafka.topic", &topic.name);
        running.push((setup.clone(), setup.start().await));
    }
    // Order numbers are given twice, by each installation to itself: no history has both.
    let places = async |service: &Service, count: u64| {
        let client = reqwest::Client::new();
        for _ in 0..count {
            let order = client.post(format!("{}/orders", service.api())).json(&order_body("C-1"));
            assert_eq!(order.send().await.unwrap().status(), 201);
        }
    };
    for (_, service) in &running {
        places(service, 50).await;
    }
    let (setup, killed) = running.remove(0);
    // What it leaves unsent is sent by the next one of its own, while the other installation runs.
    killed.kill().await;
    let next = setup.start().await;
    places(&next, 50).await;
    let left = "SELECT count(*) FROM one.instances WHERE done_at IS NULL";
    wait_until("only the living one has a log", seconds(10), async || world.database.number(left).await == 1).await;
    let unsent = "SELECT count(*) FROM one.outbox_messages WHERE state <> 'published'";
    wait_until("everything is sent", seconds(10), async || world.database.number(unsent).await == 0).await;
    for service in [next, running.remove(0).1] {
        assert_eq!(service.stop().await, Some(0));
    }
    for (topic, count) in topics.into_iter().zip([100, 50]) {
        assert_eq!(topic.dump().await.len(), count);
        topic.delete().await;
    }
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_shorter_take_over_waits_for_as_long_as_the_one_that_is_gone_would_have_been_given_by_its_own() {
    let world = World::new().await;
    let patient = world.setup().set("instance.takeover_after", "4s").start().await;
    let hasty = world.setup().start().await;
    let gone = identity(&patient);
    let ended = format!("SELECT count(*) FROM instances WHERE instance_id = {gone} AND ended_at IS NOT NULL");
    // Before it is gone, or the clock would begin too late.
    let begun = Instant::now();
    patient.kill().await;
    wait_until("it is taken over", seconds(20), async || world.database.number(&ended).await == 1).await;
    assert!(begun.elapsed() >= seconds(4), "taken over after {:?}", begun.elapsed());
    // One of a version that does not say is given what this one has.
    world.left_behind(10, 900).await;
    world.at_rest(seconds(3)).await;
    assert_eq!(hasty.stop().await, Some(0));
    world.judge().await;
}

//! Keys go when nothing can be read any more that they are to recognise; nothing else does.

use serde_json::json;
use testing::{Kafka, Received, Service, Setup, announcement, wait_until};

use crate::{
    operator::{EATEN, Operator, eaten, replayed, replayed_all},
    world::{CREATED, World, created, dated, seconds, undated},
};

/// Looks all the time whether something is due.
fn purging(world: &World) -> Setup {
    world.setup().set("retention.every", "50ms").set("retention.pause", "1ms")
}

/// Waits until a whole purge has passed.
async fn has_purged(service: &Service) {
    let last = async || service.health().await["components"]["retention"]["lastSuccess"].clone();
    for _ in 0..2 {
        let before = last().await;
        wait_until("a purge has passed", seconds(20), async || last().await != before).await;
    }
}

/// Makes what was counted and settled look older than it is kept for, but for what `except` says.
async fn has_aged(world: &World, except: &str) {
    let older = "processed_at = processed_at - interval '31 days'";
    world.database.execute(&format!("UPDATE processed_messages SET {older} WHERE NOT ({except})")).await;
    world.database.execute("UPDATE quarantine SET resolved_at = resolved_at - interval '31 days'").await;
    // What was seen of them before.
    world.database.execute("DELETE FROM key_day_ends").await;
}

async fn keys(world: &World) -> Vec<i64> {
    let keys = r#"SELECT partition * 100 + "offset" FROM processed_messages ORDER BY 1"#;
    sqlx::query_scalar(keys).fetch_all(&world.database.pool).await.unwrap()
}

/// Holds: No key is purged whose message, or a copy of it, can still be read from the topic.
#[tokio::test]
async fn an_undated_key_goes_when_it_is_old_and_neither_its_message_nor_a_copy_can_be_read() {
    let world = World::new(2).await;
    let messages: Vec<_> = std::iter::repeat_with(undated).take(5).collect();
    let [sent_elsewhere, sent_again, young, readable, in_another] = &messages[..] else { unreachable!() };
    let places: [&[_]; 2] = [
        &[(sent_elsewhere, 0), (sent_again, 0), (young, 0), (readable, 0), (in_another, 1)],
        &[(sent_elsewhere, 1), (sent_again, 0)],
    ];
    for places in places {
        for (message, partition) in places {
            world.produce(&[(*message).clone().in_partition(*partition)]).await;
        }
        world.run_to_rest().await;
    }
    // A later delivery of what is known is no copy.
    world.read_again().await;
    assert_eq!(world.database.number("SELECT count(*) FROM message_copies").await, 2);
    has_aged(&world, r#"partition = 0 AND "offset" = 2"#).await;
    let service = purging(&world).start().await;
    for ((partition, offset), left) in [
        ((0, 0), vec![0, 1, 2, 3, 100]),
        ((0, 3), vec![0, 1, 2, 3, 100]),
        ((1, 1), vec![0, 1, 2, 3]),
        ((1, 2), vec![1, 2, 3]),
        ((0, 5), vec![2]),
    ] {
        world.topic().delete_before(partition, offset).await;
        has_purged(&service).await;
        assert_eq!(keys(&world).await, left, "without what is before {offset} of {partition}");
    }
    assert_eq!(world.database.number("SELECT count(*) FROM message_copies").await, 0);
    assert_eq!(service.stop().await, Some(0));
    // Figures stay, so they are not those of the keys any more.
    assert_eq!(world.counted().await, 5);
    world.judge_purged().await;
}

#[tokio::test]
async fn what_may_have_been_counted_before_its_key_went_waits_as_too_old_until_it_is_forced() {
    for purged in [undated(), dated("2026-09-01", 0)] {
        what_was_purged_waits_as_too_old(purged).await;
    }
}

async fn what_was_purged_waits_as_too_old(purged: Received) {
    let world = World::new(1).await;
    world.produce(std::slice::from_ref(&purged)).await;
    world.run_to_rest().await;
    has_aged(&world, "false").await;
    world.topic().delete_before(0, 1).await;
    let service = purging(&world).start().await;
    wait_until("its key is gone", seconds(20), async || keys(&world).await.is_empty()).await;
    // The second is not older than the newest that was purged, the third is younger.
    let younger = announcement(CREATED, "2026-11-20T12:00:00.123457Z");
    world.produce(&[purged, created(), younger]).await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let waiting = operator.quarantine("reason=too_old").await;
    assert_eq!(waiting.iter().map(|one| &one["offset"]).collect::<Vec<_>>(), [&json!(1), &json!(2)]);
    assert_eq!(world.counted().await, 2);
    let id = operator.id_at(2, "waiting").await;
    for (one, force, answer) in [
        (None, json!({}), replayed_all(0, 0, 2)),
        (Some(&id), json!({"force": false}), replayed(0, 0, 1)),
        (Some(&id), json!({"force": true}), replayed(1, 0, 0)),
    ] {
        assert_eq!(operator.replay(one.map(String::as_str), &force).await.body, answer);
    }
    assert_eq!(world.counted().await, 3);
    let found = operator.0.get(&format!("/admin/quarantine/{id}")).await.body;
    assert_eq!((&found["state"], &found["resolution"]), (&json!("counted"), &json!("replayed with force")));
    assert_eq!(service.stop().await, Some(0));
    world.judge_purged().await;
}

#[tokio::test]
async fn without_a_broker_that_tells_what_can_be_read_nothing_is_purged() {
    let mut kafka = Kafka::start().await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create(1, &[]).await;
    let some = (0..10).map(|number| if number < 5 { undated() } else { dated("2026-09-01", number) });
    world.produce(&some.collect::<Vec<_>>()).await;
    let service = purging(&world).start().await;
    world.at_rest().await;
    world.topic().delete_before(0, 10).await;
    kafka.crash().await;
    has_aged(&world, "false").await;
    wait_until("it says what it waits for", seconds(30), async || {
        service.health().await["components"]["retention"]["state"] == "waiting"
    })
    .await;
    assert_eq!(keys(&world).await.len(), 10);
    kafka.start_again().await;
    // A crashed broker may have forgotten what was deleted a moment before.
    world.topic().delete_before(0, 10).await;
    wait_until("they are purged", seconds(30), async || keys(&world).await.is_empty()).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_purged().await;
}

#[tokio::test]
async fn of_the_quarantine_goes_what_was_counted_or_discarded_long_ago_and_what_waits_never() {
    let world = World::new(1).await;
    let poison = |text: &str| created().with_value(text);
    let twice = poison("discarded");
    world.produce(&[eaten(), twice.clone(), poison("waits"), poison("discarded lately"), twice]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    assert_eq!(operator.register(EATEN, "Order Eaten").await.status, 201);
    let discarded = operator.id_at(1, "waiting").await;
    assert_eq!(operator.discard(&discarded, "?reason=x").await.status, 200);
    has_aged(&world, "true").await;
    let lately = operator.id_at(3, "waiting").await;
    assert_eq!(operator.discard(&lately, "?reason=x").await.status, 200);
    world.database.execute("UPDATE quarantine SET received_at = received_at - interval '1 year'").await;
    assert_eq!(service.stop().await, Some(0));

    let service = purging(&world).start().await;
    let left = async || -> Vec<i64> {
        let offsets = r#"SELECT "offset" FROM quarantine ORDER BY 1"#;
        sqlx::query_scalar(offsets).fetch_all(&world.database.pool).await.unwrap()
    };
    has_purged(&service).await;
    assert_eq!(left().await, [1, 2, 3], "what was discarded can still be read");
    world.topic().delete_before(0, 4).await;
    has_purged(&service).await;
    assert_eq!(left().await, [1, 2, 3], "a copy can still be read");
    world.topic().delete_before(0, 5).await;
    has_purged(&service).await;
    assert_eq!(left().await, [2, 3]);
    assert_eq!(world.database.number("SELECT count(*) FROM quarantine_copies").await, 0);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_instance_at_a_time_purges_page_by_page_and_counting_goes_on() {
    let world = World::new(2).await;
    let old = std::iter::repeat_with(undated).take(3000).zip((0..2).cycle());
    let old: Vec<Received> = old.map(|(one, at)| one.in_partition(at)).collect();
    world.produce(&old).await;
    world.run_to_rest().await;
    has_aged(&world, "false").await;
    world.topic().delete_before(0, 1500).await;
    world.topic().delete_before(1, 1500).await;
    // Somebody else is at it.
    let mut other = world.database.pool.begin().await.unwrap();
    let lock = "SELECT pg_advisory_xact_lock('processed_messages'::regclass::oid::bigint)";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let setup = purging(&world).set("retention.batch_size", 100).set("consumer.batch_max_messages", 100);
    let (one, two) = tokio::join!(setup.start(), setup.start());
    tokio::join!(has_purged(&one), has_purged(&two));
    assert_eq!(keys(&world).await.len(), 3000);
    let later = || announcement(CREATED, "2026-11-20T12:00:01Z");
    let purging = async {
        other.rollback().await.unwrap();
        let old = "SELECT count(*) FROM processed_messages WHERE processed_at < now() - interval '30 days'";
        wait_until("they are purged", seconds(30), async || world.database.number(old).await == 0).await;
        tokio::join!(has_purged(&one), has_purged(&two));
    };
    let (written, ()) = world.topic().produce_during(later, purging).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 3000 + i64::try_from(written).unwrap());
    assert_eq!(world.quarantined().await, 0);
    let purged =
        |service: &Service| -> u64 { service.log().iter().filter_map(|line| line["purged.keys"].as_u64()).sum() };
    assert_eq!(purged(&one) + purged(&two), 3000, "each by one of them");
    assert_eq!((one.stop().await, two.stop().await), (Some(0), Some(0)));
    world.judge_purged().await;
}

#[tokio::test]
async fn a_replay_of_what_is_as_old_as_purged_keys_ends_while_keys_are_purged_all_the_time() {
    let world = World::new(1).await;
    world.produce(&[eaten(), eaten()]).await;
    // Long enough for a purge to come in between, each time.
    let service = world.setup().failpoint("consumer::admission_open", "sleep(50)").start().await;
    world.at_rest().await;
    world
        .database
        .execute(&format!(
            r#"INSERT INTO activity_types VALUES ('{EATEN}', 'Order Eaten');
            -- as if the first had been counted
            SELECT make_key_partition(current_date);
            INSERT INTO processed_messages
                (message_ref, undated, activity_type_code, activity_date, activity_at, topic, partition, "offset")
            SELECT message_ref, false, '{EATEN}', '2026-11-20', '2026-11-20T12:00:00.123456Z', topic, partition, "offset"
            FROM quarantine WHERE "offset" = 0;
            INSERT INTO daily_activity_shards (activity_date, activity_type_code, shard, quantity)
            VALUES ('2026-11-20', '{EATEN}', 0, 1);
            INSERT INTO hourly_activity_shards VALUES ('2026-11-20T12:00:00Z', '{EATEN}', 0, 1);
            UPDATE key_horizon SET newest_purged = '2026-11-21T00:00:00Z'"#
        ))
        .await;
    let purging = async {
        loop {
            world.database.execute("UPDATE key_horizon SET purges = purges + 1").await;
        }
    };
    let operator = Operator::of(&service);
    let body = json!({});
    let answer = tokio::select! {
        answer = operator.replay(None, &body) => answer,
        () = purging => unreachable!(),
        () = tokio::time::sleep(seconds(30)) => panic!("the replay makes no progress"),
    };
    assert_eq!(answer.body, replayed_all(0, 1, 1), "one has its key, and of the other it may be purged");
    assert_eq!(operator.quarantine("").await[0]["reason"], "too_old");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn what_was_corrected_is_known_for_as_long_as_it_can_be_read_as_it_came() {
    let world = World::new(1).await;
    world.produce(&[created().with_value("not json"), created()]).await;
    let service = purging(&world).start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let id = operator.id_at(0, "waiting").await;
    assert_eq!(operator.correct(&id, &created().value.unwrap(), "a test").await.status, 200);
    has_aged(&world, "true").await;
    has_purged(&service).await;
    assert_eq!(world.quarantined().await, 1);
    world.topic().delete_before(0, 1).await;
    wait_until("it goes", seconds(20), async || world.quarantined().await == 0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_figures().await;
}

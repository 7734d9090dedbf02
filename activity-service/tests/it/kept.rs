//! What is in quarantine stays there until an operator takes it out.

use serde_json::json;
use testing::announcement;

use crate::{
    operator::{EATEN, Operator, eaten, replayed},
    world::{CREATED, World, created, many},
};

#[tokio::test]
async fn a_discarded_message_comes_back_neither_delivered_nor_sent_again_nor_by_registration() {
    let world = World::new(1).await;
    let (discarded, waiting) = (eaten(), eaten());
    world.produce(&[discarded.clone(), waiting.clone(), created()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let one = operator.id_at(0, "waiting").await;
    assert_eq!(operator.discard(&one, "?reason=test%20data").await.status, 200);

    // Sent again before its type is known, and after.
    world.produce(std::slice::from_ref(&discarded)).await;
    world.at_rest().await;
    let answer = operator.register(EATEN, "Order Eaten").await;
    assert_eq!((answer.status, answer.body), (201, json!({"counted": 1, "duplicates": 0})));
    world.produce(&[discarded.clone(), created(), waiting]).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 3);
    let all = operator.quarantine("state=discarded").await;
    let place_and_audit = |one: &serde_json::Value| {
        (one["offset"].as_i64().unwrap(), one["resolvedBy"].clone(), one["resolution"].clone())
    };
    assert_eq!(
        all.iter().map(place_and_audit).collect::<Vec<_>>(),
        [0, 3, 4].map(|offset| (offset, json!("anonymous"), json!("test data")))
    );
    assert_eq!(service.stop().await, Some(0));
    let before = world.content().await;
    world.read_again().await;
    assert_eq!(world.content().await, before);
    world.judge().await;
}

#[tokio::test]
async fn what_waits_is_not_counted_although_it_could_be_by_now() {
    let world = World::new(1).await;
    let (of_a_type, refused) = (eaten(), created());
    let constraint = format!("CHECK (message_ref <> '{}')", refused.message_ref().unwrap());
    world.database.execute(&format!("ALTER TABLE processed_messages ADD CONSTRAINT not_this {constraint}")).await;
    world.produce(&[of_a_type.clone(), refused.clone(), created()]).await;
    world.run_to_rest().await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (1, 2));

    // Both would pass now.
    world.database.execute("ALTER TABLE processed_messages DROP CONSTRAINT not_this").await;
    world.database.execute(&format!("INSERT INTO activity_types VALUES ('{EATEN}', 'Order Eaten')")).await;
    let before = world.content().await;
    world.read_again().await;
    assert_eq!(world.content().await, before, "delivered again");
    world.produce(&[of_a_type, refused, eaten()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (2, 4), "sent again");

    let operator = Operator::of(&service);
    let one = operator.id_at(1, "waiting").await;
    let answer = operator.replay(Some(&one), &json!({})).await;
    assert_eq!((answer.status, answer.body), (200, replayed(1, 1, 0)), "a message and its copy");
    assert_eq!(operator.replay(None, &json!({})).await.body, replayed(1, 1, 0));
    assert_eq!((world.counted().await, world.kept("counted").await), (4, 4));
    assert_eq!(service.stop().await, Some(0));
    world.read_again().await;
    assert_eq!(world.counted().await, 4);
    world.judge().await;
}

#[tokio::test]
async fn a_message_is_discarded_with_its_copies_and_nothing_else() {
    let world = World::new(1).await;
    let (one, other) = (eaten(), eaten());
    // Of what cannot be read nobody knows whether it is the same.
    let unreadable = created().with_value("not json");
    world.produce(&[one.clone(), other, one.clone(), unreadable.clone(), unreadable]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    for (at, discarded) in [(0, 2), (3, 3)] {
        let id = operator.id_at(at, "waiting").await;
        assert_eq!(operator.discard(&id, "?reason=x").await.status, 200);
        assert_eq!(world.kept("discarded").await, discarded);
    }
    assert_eq!(operator.register(EATEN, "Order Eaten").await.body, json!({"counted": 1, "duplicates": 0}));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_large_quarantine_is_looked_through_by_its_indexes_even_before_it_was_analyzed() {
    let world = World::new(1).await;
    // Any change of the table later would let everybody plan anew.
    world.database.execute("ALTER TABLE quarantine SET (autovacuum_enabled = off)").await;
    let service = world.setup().set("database.max_connections", 2).start().await;
    let by_each_connection = async || {
        for _ in 0..4 {
            world.produce(&[eaten(), created()]).await;
            world.at_rest().await;
        }
    };
    // What is planned now is planned for next to nothing.
    by_each_connection().await;
    world
        .database
        .execute(
            r#"INSERT INTO quarantine (quarantine_id, topic, partition, "offset", value, reason, detail, message_ref)
            SELECT gen_random_uuid(), 'elsewhere', 0, i, 'x', 'unknown type', '', gen_random_uuid()
            FROM generate_series(1, 20000) i"#,
        )
        .await;
    let read = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'quarantine'";
    let before = world.database.number(read).await;
    by_each_connection().await;
    // Statistics are told when the session ends at the latest.
    assert_eq!(service.stop().await, Some(0));
    world.has_no_sessions().await;
    let rows = world.database.number(read).await - before;
    assert!(rows < 20_000, "{rows} rows were read without an index");
    world.database.execute("DELETE FROM quarantine WHERE topic = 'elsewhere'").await;
    world.judge().await;
}

#[tokio::test]
async fn the_days_that_are_believable_are_those_of_the_business_time_zone() {
    for (zone, too_early, early_enough) in [
        ("Europe/Berlin", "1999-12-31T22:59:59.999999Z", "1999-12-31T23:00:00Z"),
        ("America/St_Johns", "2000-01-01T03:29:59.999999Z", "2000-01-01T03:30:00Z"),
    ] {
        let world = World::new(1).await;
        let early = [too_early, early_enough].map(|at| announcement(CREATED, at));
        world.produce(&early).await;
        world.produce(&many(3)).await;
        let service = world.setup().set("statistics.time_zone", zone).start().await;
        world.at_rest().await;
        let kept = Operator::of(&service).quarantine("reason=bad%20date").await;
        assert_eq!(kept.iter().map(|one| &one["offset"]).collect::<Vec<_>>(), [&json!(0)], "{zone}");
        let first = "SELECT quantity FROM daily_activities WHERE activity_date = '2000-01-01'";
        assert_eq!((world.database.number(first).await, world.counted().await), (1, 4), "{zone}");
        assert_eq!(service.stop().await, Some(0));
        world.judge().await;
    }
}

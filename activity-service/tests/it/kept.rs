//! What is in quarantine stays there until an operator takes it out.

use activity_service::app::MIGRATIONS;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use testing::{Database, Received, announcement};
use uuid::Uuid;

use crate::{
    key_days::up_to,
    operator::{EATEN, Operator, eaten, replayed, replayed_all},
    world::{CREATED, World, created, many},
};

/// Holds: No message is counted while its row in quarantine waits or is discarded.
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
    assert_eq!((all.len(), &all[0]["offset"], &all[0]["messages"]), (1, &json!(0), &json!(3)));
    assert_eq!((&all[0]["resolvedBy"], &all[0]["resolution"]), (&json!("anonymous"), &json!("test data")));
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
    assert_eq!((world.counted().await, world.kept("waiting").await), (2, 2), "sent again");

    let operator = Operator::of(&service);
    let one = operator.id_at(1, "waiting").await;
    let answer = operator.replay(Some(&one), &json!({})).await;
    assert_eq!((answer.status, answer.body), (200, replayed(1, 1, 0)), "a message and its copy");
    assert_eq!(operator.replay(None, &json!({})).await.body, replayed_all(1, 1, 0));
    assert_eq!((world.counted().await, world.kept("counted").await), (4, 2));
    assert_eq!(service.stop().await, Some(0));
    world.read_again().await;
    assert_eq!(world.counted().await, 4);
    world.judge().await;
}

#[tokio::test]
async fn a_message_is_discarded_with_its_copies_and_nothing_else() {
    let world = World::new(1).await;
    let (one, other) = (eaten(), eaten());
    // Of what cannot be read every byte counts, for nobody knows what it means.
    let unreadable = created().with_value("not json");
    let of_another_key = created().with_value("not json");
    world.produce(&[one.clone(), other, one.clone(), unreadable.clone(), unreadable, of_another_key]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    for (at, discarded) in [(0, 1), (3, 2)] {
        let id = operator.id_at(at, "waiting").await;
        assert_eq!(operator.discard(&id, "?reason=x").await.status, 200);
        assert_eq!(world.kept("discarded").await, discarded);
    }
    assert_eq!(operator.register(EATEN, "Order Eaten").await.body, json!({"counted": 1, "duplicates": 0}));
    assert_eq!(world.kept("waiting").await, 1);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Before the copies of a message had one row.
const BEFORE: i64 = 20_261_129_000_003;

/// A database as it was then, with a row for each of these.
async fn as_before(topic: &str, messages: &[Received]) -> Database {
    let database = Database::new(&up_to(BEFORE)).await;
    for (offset, message) in (0i64..).zip(messages) {
        let insert = r#"INSERT INTO quarantine (quarantine_id, topic, partition, "offset", key, value, ce_type, reason,
                detail, message_ref, state, resolved_at, resolved_by, resolution)
            SELECT $1, $2, 0, $3, $4, $5, $6, 'unknown type', '', $7, state, resolved, resolved::text, resolved::text
            FROM (VALUES ('waiting', NULL), ('discarded', now())) AS one (state, resolved)
            WHERE state = CASE WHEN $3 IN (1, 2) THEN 'discarded' ELSE 'waiting' END"#;
        let ce_type = message.headers.iter().find(|(name, _)| name == "ce_type").and_then(|(_, value)| value.clone());
        let insert = sqlx::query(insert).bind(Uuid::now_v7()).bind(topic).bind(offset);
        let insert = insert.bind(message.key.clone()).bind(message.value.clone()).bind(ce_type);
        insert.bind(message.message_ref()).execute(&database.pool).await.unwrap();
    }
    database
}

#[tokio::test]
async fn what_had_a_row_for_each_place_has_one_for_each_message_and_is_still_known() {
    let mut world = World::new(1).await;
    let (one, other, unreadable) = (eaten(), eaten(), created().with_value("not json"));
    let no_value = Received { value: None, key: None, ..created() };
    let again = Received { key: None, ..one.clone() };
    let messages = [one.clone(), other, unreadable.clone(), one, unreadable.clone(), again, no_value, unreadable];
    let rows = "SELECT count(*) FILTER (WHERE state = 'waiting') * 10 + count(*) FROM quarantine";
    for goes_back in [true, false] {
        let database = as_before(&world.topic().name, &messages).await;
        let mut owner = PgConnection::connect(&database.owner_url()).await.unwrap();
        MIGRATIONS.run(&mut owner).await.unwrap();
        assert_eq!(database.number(rows).await, 34, "of the unreadable ones some wait");
        if goes_back {
            MIGRATIONS.undo(&mut owner, BEFORE).await.unwrap();
            assert_eq!(database.number(rows).await, 56, "each with its last place");
            MIGRATIONS.run(&mut owner).await.unwrap();
            assert_eq!(database.number(rows).await, 34);
        }
        owner.close().await.unwrap();
        // As after any change of the schema.
        database.grant().await;
        world.database = database;
    }
    world.produce(&messages).await;
    world.produce(&[messages[0].clone(), messages[1].clone(), created()]).await;
    world.run_to_rest().await;
    assert_eq!((world.counted().await, world.kept("waiting").await, world.kept("discarded").await), (1, 3, 1));
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
            r#"INSERT INTO quarantine (quarantine_id, topic, partition, "offset", value, reason, detail, identity)
            SELECT gen_random_uuid(), 'elsewhere', 0, i, 'x', 'unknown type', '', sha256(i::text::bytea)
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
        let kept = Operator::of(&service).quarantine("reason=bad_date").await;
        assert_eq!(kept.iter().map(|one| &one["offset"]).collect::<Vec<_>>(), [&json!(0)], "{zone}");
        let first = "SELECT quantity FROM daily_activities WHERE activity_date = '2000-01-01'";
        assert_eq!((world.database.number(first).await, world.counted().await), (1, 4), "{zone}");
        assert_eq!(service.stop().await, Some(0));
        world.judge().await;
    }
}

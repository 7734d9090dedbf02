//! A bad message stops nothing: it is kept as it came, and the partition goes on.

use serde_json::{Value, json};
use testing::{Received, Topic};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::world::{World, created, many, seconds};

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Row {
    quarantine_id: uuid::Uuid,
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    reason: String,
    detail: String,
    activity_type_code: Option<String>,
    state: String,
    received_at: OffsetDateTime,
}

async fn rows(world: &World) -> Vec<Row> {
    let rows = r#"SELECT quarantine_id, topic, partition, "offset", key, value, reason_code AS reason, detail,
        activity_type_code, state, received_at FROM quarantine ORDER BY topic, partition, "offset""#;
    sqlx::query_as(rows).fetch_all(&world.database.pool).await.unwrap()
}

/// Each with its reason, and what its detail has to name.
fn unreadable() -> Vec<(Received, &'static str, &'static str)> {
    let raw = |value: &[u8]| created().with_value(value);
    let field = |name: &str, value: Value| created().with_field(name, value);
    let from_now = |ahead: Duration| (OffsetDateTime::now_utc() + ahead).format(&Rfc3339).unwrap();
    let mut all = vec![
        (Received { value: None, ..created() }, "no_value", ""),
        (Received { value: None, key: None, headers: Vec::new(), ..created() }, "no_value", ""),
        (raw(b""), "not_json", ""),
        (raw(b" \n"), "not_json", ""),
        (raw(b"order 42 was created"), "not_json", ""),
        (raw(b"{\"messageRef\": \"0192f0c2"), "not_json", ""),
        (raw(b"{\"orderRef\": \"\xff\xfe\"}"), "not_json", ""),
        (raw(b"\0"), "not_json", ""),
        (raw(b"{\"orderRef\": \"\0\"}"), "not_json", ""),
        (raw("[".repeat(100_000).as_bytes()), "not_json", ""),
        (raw("{\"a\":".repeat(100_000).as_bytes()), "not_json", ""),
        (raw(&vec![b'x'; 900_000]), "not_json", ""),
        (raw([created().value.unwrap(), created().value.unwrap()].concat().as_slice()), "not_json", ""),
        (raw(b"[]"), "bad_field", "object"),
        (raw(b"null"), "bad_field", "object"),
        (raw(b"17"), "bad_field", "object"),
        (raw(b"\"text\""), "bad_field", "object"),
        (raw(b"{}"), "bad_field", "messageRef"),
        (field("messageRef", json!("0192f0c2000070008000000000000001")), "bad_field", "messageRef"),
        (field("activityTypeCode", json!("order_created")), "bad_field", "activityTypeCode"),
        (field("activityTypeCode", json!("A".repeat(65))), "bad_field", "activityTypeCode"),
        (field("activityAt", json!("2026-02-30T12:00:00Z")), "bad_field", "activityAt"),
        (field("activityAt", json!("2026-11-20T12:00:00")), "bad_field", "activityAt"),
        (field("activityAt", json!("2026-11-20")), "bad_field", "activityAt"),
        (field("activityTypeCode", json!("ORDER_EATEN")), "unknown_type", "activityTypeCode"),
        (created().with_header("ce_type", "summarisation.ORDER_CREATED.v2"), "unknown_version", "ce_type"),
        (created().with_header("ce_type", b"\xff\0"), "unknown_version", "ce_type"),
        (created().with_header("ce_type", ""), "unknown_version", "ce_type"),
        (field("activityAt", json!("1999-12-31T23:59:59.999999Z")), "bad_date", "2000-01-01"),
        (field("activityAt", json!("0000-01-01T00:00:00Z")), "bad_date", "2000-01-01"),
        (field("activityAt", json!("9999-12-31T23:59:59Z")), "bad_date", "ahead"),
        (field("activityAt", json!("9999-12-31T23:59:59-23:59")), "bad_date", "ahead"),
        (field("activityAt", json!(from_now(Duration::hours(25)))), "bad_date", "ahead"),
    ];
    for name in ["messageRef", "activityTypeCode", "activityAt"] {
        all.push((created().without_field(name), "bad_field", name));
        for value in [
            json!(null),
            json!(17),
            json!(1.5),
            json!(true),
            json!([]),
            json!({}),
            json!(""),
            json!("canary"),
            json!("ORDER\0CREATED"),
        ] {
            all.push((field(name, value), "bad_field", name));
        }
        let deep = format!("{{\"{name}\": {}{}}}", "[".repeat(50_000), "]".repeat(50_000));
        all.push((raw(deep.as_bytes()), "bad_field", ""));
    }
    all
}

#[tokio::test]
async fn every_kind_of_unreadable_message_is_kept_as_it_came_and_its_neighbours_are_counted() {
    let world = World::new(2).await;
    let bad = unreadable();
    let mut messages = Vec::new();
    for (message, ..) in &bad {
        messages.extend([created().in_partition(1), message.clone().in_partition(1)]);
    }
    // Just good enough.
    let ahead = OffsetDateTime::now_utc() + Duration::hours(23);
    messages.push(created().in_partition(1).with_field("activityAt", ahead.format(&Rfc3339).unwrap()));
    messages.push(created().in_partition(1).with_field("activityAt", "2000-01-01T00:00:00Z"));
    world.produce(&messages).await;
    world.run_to_rest().await;

    assert_eq!(world.counted().await, i64::try_from(bad.len() + 2).unwrap());
    let kept = rows(&world).await;
    assert_eq!(kept.len(), bad.len());
    for ((index, (message, reason, detail)), row) in (0..).zip(&bad).zip(&kept) {
        let value = message.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        assert_eq!((row.topic.as_str(), row.partition), (world.topic().name.as_str(), 1));
        assert_eq!((row.offset, row.reason.as_str()), (2 * index + 1, *reason), "{value:.100}");
        assert_eq!((&row.key, &row.value), (&message.key, &message.value), "{value:.100}");
        assert!(row.detail.contains(detail) && !row.detail.contains("canary"), "{value:.100}: {}", row.detail);
        assert_eq!(row.state, "waiting");
        if *reason == "unknown_type" {
            assert_eq!(row.activity_type_code.as_deref(), Some("ORDER_EATEN"));
        }
    }

    // Delivered again they are the same rows.
    world.topic().forget(&world.group).await;
    world.run_to_rest().await;
    assert_eq!(rows(&world).await, kept);
    world.judge().await;
}

#[tokio::test]
async fn messages_that_postgres_itself_refuses_are_found_and_their_neighbours_counted() {
    let world = World::new(1).await;
    let mut messages = many(1500);
    let refused = [0, 1, 700, 701, 1100, 1499].map(|index: usize| (index, messages[index].message_ref().unwrap()));
    let list = |refs: &[(usize, uuid::Uuid)]| {
        refs.iter().map(|(_, message_ref)| format!("'{message_ref}'")).collect::<Vec<_>>().join(",")
    };
    // By a constraint, and by an error of the data in a trigger.
    world
        .database
        .execute(&format!(
            "ALTER TABLE processed_messages ADD CONSTRAINT not_these CHECK (message_ref NOT IN ({}));
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'not that one' USING ERRCODE = '22003'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON processed_messages FOR EACH ROW
            WHEN (NEW.message_ref IN ({})) EXECUTE FUNCTION refuse()",
            list(&refused[..3]),
            list(&refused[3..])
        ))
        .await;
    // In the middle of one that is unreadable anyway.
    messages[702] = created().with_value("not json");
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 1500 - 7);
    let kept = rows(&world).await;
    let found: Vec<_> = kept.iter().map(|row| (row.offset, row.reason.as_str())).collect();
    let not_storable = "not_storable";
    assert_eq!(
        found,
        [
            (0, not_storable),
            (1, not_storable),
            (700, not_storable),
            (701, not_storable),
            (702, "not_json"),
            (1100, not_storable),
            (1499, not_storable)
        ]
    );
    for (row, state) in kept.iter().zip(["23514", "23514", "23514", "22003", "", "22003", "22003"]) {
        assert!(row.detail.contains(state), "{}", row.detail);
        assert!(!row.detail.contains("not that one") && !row.detail.contains("not_these"), "{}", row.detail);
        assert_eq!(row.value, messages[usize::try_from(row.offset).unwrap()].value);
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn of_a_topic_made_anew_another_message_at_the_same_offset_is_kept_beside_the_first() {
    let mut world = World::new(1).await;
    let message = created().in_partition(0);
    world.produce(&[message.clone().with_value("one"), message.clone()]).await;
    world.run_to_rest().await;
    world.topic().delete().await;
    // Deleting takes its time, and the name is free afterwards.
    let name = world.topic().clone();
    testing::wait_until("the topic is gone", seconds(20), async || name.ends().await.is_empty()).await;
    world.topic().create(1, &[]).await;
    world.produce(&[message.clone().with_value("another"), message.clone(), created()]).await;
    let service = world.setup().start().await;
    world.has_counted(2, seconds(20)).await;
    let kept = rows(&world).await;
    let mut values: Vec<_> = kept.iter().map(|row| (row.offset, row.value.clone().unwrap())).collect();
    values.sort();
    assert_eq!(values, [(0, b"another".to_vec()), (0, b"one".to_vec())]);
    assert_eq!(service.stop().await, Some(0));
    // What was on the first topic can be compared with nothing any more.
    world.database.execute("DELETE FROM quarantine WHERE value = 'one'").await;
    world.topics = vec![Topic { ..world.topic().clone() }];
    world.judge().await;
}

#[tokio::test]
async fn bad_messages_of_every_kind_among_ten_thousand_are_kept_and_the_others_counted() {
    let world = World::new(6).await;
    let bad = unreadable();
    // The long ones once are enough.
    let short: Vec<_> = bad.iter().filter(|(one, ..)| one.value.as_ref().is_none_or(|v| v.len() < 1000)).collect();
    let mut messages = many(10_000);
    for (index, message) in messages.iter_mut().enumerate().filter(|(index, _)| index % 20 == 7) {
        let (poison, ..) = short[index / 20 % short.len()];
        *message = Received { key: message.key.clone(), ..poison.clone() };
    }
    let service = world.setup().start().await;
    world
        .recount()
        .while_the_figures_agree(async {
            world.produce(&messages).await;
            world.at_rest().await;
        })
        .await;
    let kept = "SELECT count(*) + (SELECT coalesce(sum(messages), 0)::bigint FROM quarantine_copies) FROM quarantine";
    assert_eq!((world.counted().await, world.database.number(kept).await), (9500, 500));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

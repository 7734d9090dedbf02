//! A flood of bad messages is listed, replayed and discarded by filters, in requests that end in time.

use serde_json::{Value, json};

use crate::{
    operator::{EATEN, Operator, eaten},
    world::{World, created, many, seconds},
};

fn offsets(entries: &[Value]) -> Vec<i64> {
    entries.iter().map(|one| one["offset"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn messages_are_listed_by_reason_type_topic_and_time_with_what_could_be_read_of_them() {
    let world = World::new(1).await;
    let wrong_time = eaten().with_field("activityAt", "2026-11-20_12:00:00Z");
    let of_version_2 = created().with_header("ce_type", "summarisation.ORDER_CREATED.v2");
    let messages = [eaten(), wrong_time, of_version_2, created().with_value("not json")];
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let all = operator.quarantine("").await;
    for (entry, message) in all.iter().zip(&messages) {
        assert_eq!(entry["key"].as_str().map(str::as_bytes), message.key.as_deref());
        assert_eq!(entry.get("messageRef"), message.message_ref().map(|found| json!(found)).as_ref(), "{entry}");
        assert_eq!(entry["activityTypeCode"].as_str().map(str::to_owned), message.text("activityTypeCode"));
    }
    // The second message comes later.
    world.produce(&[eaten()]).await;
    world.at_rest().await;
    let second = operator.quarantine("").await[4]["receivedAt"].as_str().unwrap().to_owned();
    let topic = &world.topic().name;
    for (query, expected) in [
        ("reason=unknown_type".to_owned(), vec![0, 4]),
        // As it was written before reasons were codes.
        ("reason=unknown%20type".to_owned(), vec![0, 4]),
        ("reason=bad_field".to_owned(), vec![1]),
        (format!("activityTypeCode={EATEN}"), vec![0, 1, 4]),
        (format!("topic={topic}"), vec![0, 1, 2, 3, 4]),
        ("topic=other".to_owned(), vec![]),
        (format!("from={second}"), vec![4]),
        (format!("to={second}"), vec![0, 1, 2, 3]),
        (format!("to={second}&activityTypeCode={EATEN}&reason=unknown_type&topic={topic}"), vec![0]),
    ] {
        for limit in [1, 200] {
            assert_eq!(offsets(&operator.quarantine(&format!("{query}&limit={limit}")).await), expected, "{query}");
        }
    }
    for (query, status) in [("activityTypeCode=x", 400), ("from=2026-11-20", 400), ("to=2026-11-20_12:00:00Z", 400)] {
        assert_eq!(operator.0.get(&format!("/admin/quarantine?{query}")).await.status, status, "{query}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_replay_of_many_ends_in_pages_and_says_what_it_would_do() {
    let world = World::new(1).await;
    let drunk = eaten().with_field("activityTypeCode", "ORDER_DRUNK");
    let mut messages: Vec<_> = std::iter::repeat_with(eaten).take(5).collect();
    messages.extend([drunk, created().with_value("not json"), created()]);
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    world.database.execute(&format!("INSERT INTO activity_types VALUES ('{EATEN}', 'Order Eaten')")).await;
    let operator = Operator::of(&service);
    let before = world.content().await;
    let filter = json!({"reason": "unknown_type"});
    let would = operator.replay(None, &json!({"filter": filter, "dryRun": true})).await.body;
    let figures = json!([{"activityDate": "2026-11-20", "activityTypeCode": EATEN, "change": 5}]);
    let expected = json!({"counted": 5, "duplicates": 0, "stillWaiting": 1, "left": 0, "figures": figures});
    assert_eq!(would, expected);
    let one = operator.id_at(0, "waiting").await;
    let would = operator.replay(Some(&one), &json!({"dryRun": true})).await.body;
    assert_eq!((&would["counted"], &would["figures"][0]["change"]), (&json!(1), &json!(1)));
    assert_eq!(world.content().await, before, "nothing has changed");

    let mut body = json!({"filter": filter, "limit": 2});
    let mut left = Vec::new();
    loop {
        let page = operator.replay(None, &body).await.body;
        left.push(page["left"].as_u64().unwrap());
        let Some(cursor) = page.get("cursor") else { break };
        body["cursor"] = cursor.clone();
    }
    assert_eq!(left, [4, 2, 0]);
    assert_eq!((world.counted().await, world.kept("waiting").await), (6, 2));

    let cursor = &body["cursor"];
    for (wrong, pointer) in [
        (json!({"limit": 0}), "/limit"),
        (json!({"limit": 100_001}), "/limit"),
        (json!({"cursor": cursor}), "/cursor"),
        (json!({"filter": filter, "cursor": "x"}), "/cursor"),
        (json!({"filter": {"reason": "x"}}), "/filter/reason"),
        (json!({"filter": {"activityTypeCode": "x"}}), "/filter/activityTypeCode"),
        (json!({"filter": {"from": "2026-11-20"}}), "/filter/from"),
        (json!({"filter": {"to": "2026-11-20"}}), "/filter/to"),
        (json!({"filter": {"colour": "red"}}), "/filter/colour"),
    ] {
        let answer = operator.replay(None, &wrong).await;
        assert_eq!((answer.status, &answer.body["errors"][0]["pointer"]), (422, &json!(pointer)), "{wrong}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn many_are_discarded_by_a_filter_with_a_reason_and_nothing_else() {
    let world = World::new(1).await;
    let mut messages: Vec<_> = std::iter::repeat_with(|| created().with_value("not json")).take(2500).collect();
    messages.extend([eaten(), created()]);
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let before = world.content().await;
    let body = json!({"filter": {"reason": "not_json"}, "reason": "a test of the sender", "dryRun": true});
    assert_eq!(operator.discard_many(&body).await, json!({"discarded": 2500, "left": 0}));
    assert_eq!(world.content().await, before, "nothing has changed");
    let body = json!({"filter": {"reason": "not_json"}, "reason": "a test of the sender", "limit": 1200});
    let first = operator.discard_many(&body).await;
    assert_eq!((&first["discarded"], &first["left"]), (&json!(1200), &json!(1300)));
    // With a cursor or without one: what is discarded is not in the way any more.
    assert_eq!(operator.discard_many(&body).await["left"], 100);
    assert_eq!(operator.discard_many(&body).await, json!({"discarded": 100, "left": 0}));
    assert_eq!((world.kept("discarded").await, world.kept("waiting").await), (2500, 1));
    let discarded = &operator.0.get("/admin/quarantine?state=discarded&limit=1").await.body[0];
    let why = (&discarded["resolvedBy"], &discarded["resolution"]);
    assert_eq!(why, (&json!("anonymous"), &json!("a test of the sender")));

    for (wrong, pointer) in [
        (json!({"filter": {}, "reason": " "}), "/reason"),
        (json!({"filter": {}}), ""),
        (json!({"reason": "everything, for want of a word"}), ""),
        (json!({"filter": {"topic": 5}, "reason": "x"}), "/filter/topic"),
    ] {
        let answer = operator.0.post("/admin/quarantine/discard", &wrong).await.unwrap();
        assert_eq!((answer.status, &answer.body["errors"][0]["pointer"]), (422, &json!(pointer)), "{wrong}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn what_words_say_to_the_version_before_is_said_by_codes() {
    let world = World::new(1).await;
    world.produce(&[eaten(), created()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    // What the version before asks for when a type is registered, and what it writes.
    let of_before = format!(
        "SELECT count(*) FROM quarantine
        WHERE state = 'waiting' AND reason = 'unknown type' AND activity_type_code = '{EATEN}'"
    );
    assert_eq!(world.database.number(&of_before).await, 1);
    let again = "UPDATE quarantine SET reason = 'bad date', detail = 'as before'";
    world.database.execute(again).await;
    let operator = Operator::of(&service);
    assert_eq!(operator.quarantine("reason=bad_date").await[0]["reason"], "bad_date");
    world.database.execute("UPDATE quarantine SET reason = 'unknown type'").await;
    assert_eq!(operator.register(EATEN, "Order Eaten").await.body, json!({"counted": 1, "duplicates": 0}));
    // The version after may write codes.
    world.database.execute("UPDATE quarantine SET reason = 'unknown_type'").await;
    assert_eq!(operator.quarantine("state=counted").await[0]["reason"], "unknown_type");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn beyond_the_bound_of_a_topic_only_place_hash_and_reason_are_kept_and_that_is_told() {
    for (rows, megabytes, whole) in [(3, 1, 3), (1000, 0, 0)] {
        let world = World::new(1).await;
        let mut messages: Vec<_> = std::iter::repeat_with(eaten).take(5).collect();
        messages.push(messages[4].clone());
        messages.push(created());
        let setup = world.setup().set("quarantine.max_rows", rows).set("quarantine.max_megabytes", megabytes);
        let service = setup.set("metrics.database_every", "100ms").start().await;
        // One after the other: across batches, too.
        for message in &messages {
            world.produce(std::slice::from_ref(message)).await;
            world.at_rest().await;
        }
        let operator = Operator::of(&service);
        let all = operator.quarantine("").await;
        assert_eq!(offsets(&all), [0, 1, 2, 3, 4]);
        for (index, entry) in all.iter().enumerate() {
            assert_eq!(entry.get("valueSha256").is_some(), index >= whole, "{entry}");
            assert_eq!(entry.get("key").is_some(), index < whole);
            assert_eq!((&entry["reason"], entry.get("messageRef").is_some()), (&json!("unknown_type"), true));
        }
        assert_eq!(all[4]["messages"], 2, "a copy is known by its hash");
        let told = "activity_quarantined_without_value_messages";
        let without = f64::from(u8::try_from(5 - whole).unwrap());
        testing::wait_until("it is told", seconds(20), async || service.metrics().await.sum(told) == without).await;
        // It cannot be tried, and can be mended: the topic has its bytes.
        assert_eq!(operator.register(EATEN, "Order Eaten").await.body["counted"], whole);
        let id = operator.id_at(4, "waiting").await;
        let body = operator.replay(Some(&id), &json!({})).await.body;
        assert_eq!(body, crate::operator::replayed(0, 0, 2));
        let answer = operator.correct(&id, messages[4].value.as_ref().unwrap(), "read from the topic").await;
        assert_eq!((answer.status, &answer.body["state"]), (200, &json!("counted")), "{answer:?}");
        assert_eq!(world.counted().await, i64::try_from(whole).unwrap() + 2);
        assert_eq!(service.stop().await, Some(0));
        world.judge().await;
    }
}

#[tokio::test]
async fn lists_replays_and_discards_of_a_large_quarantine_read_what_they_show() {
    let world = World::new(1).await;
    world.produce(&many(1)).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    world
        .database
        .execute(
            r#"INSERT INTO quarantine (quarantine_id, topic, partition, "offset", value, reason, detail, identity,
                activity_type_code, received_at)
            SELECT gen_random_uuid(), CASE i % 1000 WHEN 0 THEN 'rare' ELSE 'elsewhere' END, 0, i, 'x',
                CASE i % 1000 WHEN 1 THEN 'bad date' ELSE 'unknown type' END, '', sha256(i::text::bytea),
                CASE i % 1000 WHEN 2 THEN 'RARE' ELSE 'FREQUENT' END, now() - i * interval '1 minute'
            FROM generate_series(1, 50000) i; ANALYZE quarantine"#,
        )
        .await;
    let operator = Operator::of(&service);
    let read = "SELECT pg_stat_clear_snapshot() IS NULL, seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables
        WHERE relname = 'quarantine'";
    let read = async || -> i64 {
        let (_, read): (bool, i64) = sqlx::query_as(read).fetch_one(&world.database.pool).await.unwrap();
        read
    };
    let from = "2020-01-01T00:00:00Z";
    let before = read().await;
    let queries = ["topic=rare", "reason=bad_date", "activityTypeCode=RARE", &format!("from={from}")];
    for query in queries {
        assert_eq!(operator.0.get(&format!("/admin/quarantine?{query}")).await.body.as_array().unwrap().len(), 50);
    }
    for filter in [json!({"topic": "rare"}), json!({"reason": "bad_date"}), json!({"activityTypeCode": "RARE"})] {
        let body = json!({"filter": filter, "reason": "x", "dryRun": true});
        assert_eq!(operator.discard_many(&body).await["discarded"], 50, "{body}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.has_no_sessions().await;
    let rows = read().await - before;
    assert!(rows < 2000, "{rows} rows were read");
    world.database.execute("DELETE FROM quarantine").await;
    world.judge().await;
}

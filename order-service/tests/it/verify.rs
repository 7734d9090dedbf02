//! `order-service messages verify`: the outbox held against the topic.

use std::process::Output;

use serde_json::{Value, json};
use testing::{Received, Setup};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::world::{World, seconds};

/// From an hour ago, but of today, to an hour ahead.
pub async fn verify(setup: &Setup) -> Output {
    let now = OffsetDateTime::now_utc();
    let from = (now - Duration::hours(1)).max(now.replace_time(time::Time::MIDNIGHT)).format(&Rfc3339).unwrap();
    let to = (now + Duration::hours(1)).format(&Rfc3339).unwrap();
    setup.run(&["messages", "verify", "--from", &from, "--to", &to, "--json"]).await
}

fn sums(done: &Output) -> Value {
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"))
}

fn lines(done: &Output) -> Vec<String> {
    String::from_utf8_lossy(&done.stderr).lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbox_and_topic_that_agree_are_told_so_beside_a_service_that_runs() {
    let world = World::new().await;
    let service = world.setup().set("kafka.partitions", 3).start().await;
    let client = world.client(&service);
    client.load(3000, 16).await;
    world.at_rest(seconds(30)).await;
    // Somebody else's messages are not ours to know.
    let foreign = Received {
        partition: 0,
        offset: 0,
        key: world.topic.dump().await[0].key.clone(),
        value: Some(
            format!(
                r#"{{"messageRef":"{}","activityTypeCode":"ORDER_CREATED","activityAt":"{}"}}"#,
                uuid::Uuid::now_v7(),
                OffsetDateTime::now_utc().format(&Rfc3339).unwrap()
            )
            .into_bytes(),
        ),
        headers: vec![("ce_source".to_owned(), Some(b"/another".to_vec()))],
    };
    world.topic.produce(&[foreign]).await;
    let done = verify(&world.setup()).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let expected =
        json!({"onTopic": 3000, "unknown": 0, "published": 3000, "missing": 0, "deleted": 0, "notPublished": 0});
    assert_eq!(sums(&done), expected);
    assert_eq!(service.stop().await, Some(0));
    // What has no row is one of another program here.
    world.judge_with(testing::Checker::purge_allowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_has_lost_and_what_the_topic_has_lost_is_told_and_nothing_is_changed() {
    let world = World::new().await;
    let service = world.setup().set("kafka.partitions", 2).start().await;
    world.client(&service).load(200, 4).await;
    world.at_rest(seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));

    // As after a standby without the last transactions was promoted.
    let mut lost = world.database.pool.begin().await.unwrap();
    let refs: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT message_ref FROM outbox ORDER BY message_ref DESC LIMIT 3")
        .fetch_all(&mut *lost)
        .await
        .unwrap();
    let rows: Vec<(String,)> =
        sqlx::query_as("DELETE FROM outbox WHERE message_ref = ANY ($1) RETURNING message_ref::text")
            .bind(&refs)
            .fetch_all(&mut *lost)
            .await
            .unwrap();
    assert_eq!(rows.len(), 3);
    lost.commit().await.unwrap();
    let done = verify(&world.setup()).await;
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(
        sums(&done),
        json!({"onTopic": 200, "unknown": 3, "published": 197, "missing": 0, "deleted": 0, "notPublished": 0})
    );
    for one in &refs {
        assert!(lines(&done).iter().any(|line| line.starts_with(&format!("unknown {one} "))), "{done:?}");
    }

    // Another topic of the name, with one message of the first.
    let first = world.topic.dump().await.remove(0);
    world.topic.delete().await;
    world.topic.create(2, &[]).await;
    world.topic.produce(&[first]).await;
    let done = verify(&world.setup()).await;
    assert_eq!(done.status.code(), Some(1));
    let sums = sums(&done);
    // It may be that it was the first one of its partition before.
    assert!([196, 197].contains(&sums["missing"].as_i64().unwrap()), "{sums}");
    assert_eq!(sums["onTopic"], 1);
    assert!(lines(&done).iter().filter(|line| line.starts_with("missing ")).count() >= 196);
    world.without_judgement();
}

#[tokio::test]
async fn a_span_that_begins_before_the_outbox_does_is_refused() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let done = world
        .setup()
        .run(&["messages", "verify", "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z"])
        .await;
    assert_eq!(done.status.code(), Some(1));
    assert!(lines(&done).iter().any(|line| line.contains("begin the span there")), "{done:?}");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

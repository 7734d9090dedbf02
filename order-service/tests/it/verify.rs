//! `order-service messages verify`: the outbox held against the topic.

use std::process::Output;

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};
use testing::{Received, Setup, Topic};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::world::{World, seconds};

/// From an hour ago, but of today, to an hour ahead.
fn span() -> [String; 4] {
    let now = OffsetDateTime::now_utc();
    let from = (now - Duration::hours(1)).max(now.replace_time(time::Time::MIDNIGHT)).format(&Rfc3339).unwrap();
    let to = (now + Duration::hours(1)).format(&Rfc3339).unwrap();
    ["--from".into(), from, "--to".into(), to]
}

pub async fn verify(setup: &Setup) -> Output {
    let span = span();
    setup.run(&[&["messages", "verify", "--json"], &span.each_ref().map(String::as_str)[..]].concat()).await
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
    let key = world.topic.dump().await[0].key.clone();
    let of_now = |message_ref: uuid::Uuid, source: &str| Received {
        partition: 0,
        offset: 0,
        key: key.clone(),
        value: Some(
            format!(
                r#"{{"messageRef":"{message_ref}","activityTypeCode":"ORDER_CREATED","activityAt":"{}"}}"#,
                OffsetDateTime::now_utc().format(&Rfc3339).unwrap()
            )
            .into_bytes(),
        ),
        headers: vec![("ce_source".to_owned(), Some(source.as_bytes().to_vec()))],
    };
    // Somebody else's messages are not ours to know; nor is, any more, one whose reference was drawn on a day that is gone.
    let drawn_in_2020 = uuid::Uuid::from_u128(0x0170_0000_0000_7000_8000_0000_0000_0001);
    let foreign = of_now(uuid::Uuid::now_v7(), "/another");
    world.topic.produce(&[foreign, of_now(drawn_in_2020, "/order-service")]).await;
    let done = verify(&world.setup()).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let expected =
        json!({"onTopic": 3001, "unknown": 0, "published": 3000, "missing": 0, "deleted": 0, "notPublished": 0});
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
    // Whether anybody reads it or not.
    let span = span();
    let unread = [&["messages", "verify"], &span.each_ref().map(String::as_str)[..]].concat();
    assert_eq!(world.setup().run_unread(&unread).await.map(|(code, _)| code), [Some(1), Some(1)]);

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

/// The same messages at the same places of another topic, as though sent by hosts whose clocks are three days behind.
async fn sent_by_hosts_behind(topic: &Topic) -> Topic {
    let copy = Topic { brokers: topic.brokers.clone(), name: format!("{}.behind", topic.name) };
    copy.create(2, &[]).await;
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &copy.brokers).create().unwrap();
    let then = (OffsetDateTime::now_utc() - Duration::days(3)).unix_timestamp() * 1000;
    for message in topic.dump().await {
        let record = BaseRecord::<[u8], [u8]>::to(&copy.name).partition(message.partition).timestamp(then);
        let record = record.key(message.key.as_deref().unwrap()).payload(message.value.as_deref().unwrap());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(seconds(20)).unwrap();
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_has_lost_is_found_whatever_the_clocks_of_the_hosts_said() {
    let world = World::new().await;
    let service = world.setup().set("kafka.partitions", 2).start().await;
    world.client(&service).load(100, 4).await;
    world.at_rest(seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));
    let copy = sent_by_hosts_behind(&world.topic).await;
    let newest =
        "DELETE FROM outbox WHERE message_ref IN (SELECT message_ref FROM outbox ORDER BY message_ref DESC LIMIT 1)";
    assert_eq!(world.database.execute(newest).await, 1);
    let done = verify(&world.setup().set("kafka.topic", &copy.name)).await;
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert_eq!((&sums(&done)["onTopic"], &sums(&done)["unknown"]), (&json!(100), &json!(1)));
    copy.delete().await;
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

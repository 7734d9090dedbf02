//! The outbox as operators see it over HTTP, and what they let happen again.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use testing::{Answer, Client, Service, Setup, wait_until};
use uuid::Uuid;

use crate::world::{World, seconds};

/// A world of `failed` failed messages, which the topic takes by now, and `published` other ones.
pub async fn failed_and_published(failed: u64, published: u64) -> (World, Service, Client) {
    failed_and_published_by(|setup| setup, failed, published).await
}

async fn failed_and_published_by(
    set: impl FnOnce(Setup) -> Setup,
    failed: u64,
    published: u64,
) -> (World, Service, Client) {
    let world = World::new().await;
    world.topic.create(2, &[("max.message.bytes", "12000")]).await;
    world.left_behind(failed, 900).await;
    let spoil = "UPDATE outbox SET tracestate = (SELECT string_agg(md5(n::text || message_ref), '')
        FROM generate_series(1, 600) n)";
    world.database.execute(spoil).await;
    let service = set(world.setup()).set("publisher.max_failures", 1).start().await;
    let client = world.client(&service);
    client.load(published, 4).await;
    let (failed, published) = (i64::try_from(failed).unwrap(), i64::try_from(published).unwrap());
    wait_until("some have failed, the others are published", seconds(20), async || {
        world.count("failed").await == failed && world.count("published").await == published
    })
    .await;
    world.topic.set("max.message.bytes", "100000").await;
    (world, service, client)
}

async fn retry(client: &Client, which: &str) -> Answer {
    client.ask(Method::POST, &format!("/admin/messages/{which}"), &[], Vec::new()).await.unwrap()
}

pub fn refs(messages: &[Value]) -> Vec<Uuid> {
    messages.iter().map(|one| one["messageRef"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn messages_are_listed_by_state_newest_first_and_in_pages() {
    let (world, service, client) = failed_and_published(7, 23).await;
    let failed = client.list("/admin/messages").await;
    assert_eq!(failed, client.list("/admin/messages?state=failed").await);
    assert_eq!(failed.len(), 7);
    for one in &failed {
        assert_eq!((&one["state"], &one["failures"]), (&json!("failed"), &json!(1)));
        assert!(one["lastError"].is_string() && one["publishedAt"].is_null() && one["offset"].is_null(), "{one}");
        assert!(one["orderRef"].as_str().unwrap().starts_with("OS"));
        assert_eq!(one["activityTypeCode"], "ORDER_CREATED");
    }
    let published = client.list("/admin/messages?state=published&limit=5").await;
    assert_eq!(published.len(), 23);
    let found = refs(&published);
    assert!(found.is_sorted_by(|one, next| one > next), "newest first, none twice: {found:?}");
    assert_eq!(client.list("/admin/messages?state=unpublished").await, [] as [Value; 0]);

    let first = client.get("/admin/messages?state=published&limit=5").await;
    let cursor = first.next().unwrap().rsplit("cursor=").next().unwrap().to_owned();
    for (query, status) in [
        ("state=sent", 400),
        ("cursor=x", 400),
        ("unknown=1", 400),
        ("limit=0", 422),
        ("limit=201", 422),
        // Of another list.
        (&format!("state=failed&cursor={cursor}"), 400),
    ] {
        assert_eq!(client.get(&format!("/admin/messages?{query}")).await.status, status, "{query}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.failed(refs(&failed))).await;
}

#[tokio::test]
async fn one_message_is_shown_with_its_place_on_the_topic() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let order = client.place_one().await;
    world.at_rest(seconds(10)).await;
    let on_topic = &world.topic.dump().await[0];
    let shown = client.get(&format!("/admin/messages/{}", on_topic.header("ce_id"))).await;
    assert_eq!(shown.status, 200);
    assert_eq!((&shown.body["state"], &shown.body["orderRef"]), (&json!("published"), &json!(order)));
    assert_eq!(shown.body["partition"], on_topic.partition);
    assert_eq!(shown.body["offset"], on_topic.offset);
    assert!(shown.body["publishedAt"].is_string() && shown.body["failures"] == 0, "{}", shown.body);
    for unknown in [Uuid::now_v7().to_string(), "x".to_owned()] {
        assert_eq!(client.get(&format!("/admin/messages/{unknown}")).await.status, 404);
        assert_eq!(retry(&client, &format!("{unknown}/retry")).await.status, 404);
    }
    let conflict = retry(&client, &format!("{}/retry", on_topic.header("ce_id"))).await;
    assert_eq!(conflict.status, 409, "only a failed one can be retried");
    assert_eq!(conflict.header("content-type"), "application/problem+json");
    world.judge().await;
}

#[tokio::test]
async fn a_failed_message_that_is_retried_is_sent_within_2_s_by_any_instance() {
    let (world, service, client) = failed_and_published(3, 5).await;
    let failed = refs(&client.list("/admin/messages").await);
    let accepted = retry(&client, &format!("{}/retry", failed[1])).await;
    assert_eq!((accepted.status, &accepted.body["failures"]), (202, &json!(0)));
    wait_until("it is published", seconds(2), async || world.count("published").await == 6).await;
    assert_eq!(client.get(&format!("/admin/messages/{}", failed[1])).await.body["state"], "published");
    assert_eq!(world.count("failed").await, 2, "the others stay as they are");
    assert_eq!(retry(&client, &format!("{}/retry", failed[1])).await.status, 409);

    // Whoever lives takes it on.
    let other = world.setup().start().await;
    service.kill().await;
    let client = world.client(&other);
    let all = retry(&client, "retry").await;
    assert_eq!((all.status, all.body), (202, json!({"retried": 2})));
    wait_until("they are published", seconds(2), async || world.count("published").await == 8).await;
    let none = retry(&client, "retry").await;
    assert_eq!((none.status, none.body), (202, json!({"retried": 0})));
    assert_eq!(other.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_retried_message_that_is_refused_again_fails_again() {
    let (world, service, client) = failed_and_published(1, 1).await;
    world.topic.set("max.message.bytes", "12000").await;
    let failed = refs(&client.list("/admin/messages").await);
    let accepted = retry(&client, "retry").await;
    assert_eq!(accepted.body, json!({"retried": 1}));
    let again =
        "SELECT count(*) FROM rejected_messages WHERE state = 'failed' AND failures = 1 AND last_error IS NOT NULL";
    wait_until("it has failed again", seconds(5), async || world.database.number(again).await == 1).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.failed(failed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retrying_everything_again_and_again_under_load_sends_each_message_once() {
    // Nobody living is taken over, should the machine stand still for a moment: what is in flight then may come twice.
    let patient = |setup: Setup| setup.set("instance.takeover_after", "5s");
    let (world, service, client) = failed_and_published_by(patient, 2000, 10).await;
    let other = patient(world.setup()).start().await;
    client
        .load_during(4, async {
            let mut retried = 0;
            while retried < 2000 {
                let (one, also) = tokio::join!(retry(&client, "retry"), retry(&client, "retry"));
                for answer in [one, also] {
                    assert_eq!(answer.status, 202, "{answer:?}");
                    retried += answer.body["retried"].as_i64().unwrap();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(retried, 2000);
        })
        .await;
    world.at_rest(seconds(20)).await;
    assert_eq!((service.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

//! What is told of how far everything is announced is true, whatever dies meanwhile.

use std::collections::BTreeMap;

use serde_json::Value;
use testing::{Proxy, Topic, wait_until};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::world::{World, identity, seconds};

fn moment(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}

/// Everything that was told, in order.
async fn told(world: &World) -> Vec<Value> {
    let topic = Topic { name: format!("{}.progress", world.topic.name), ..world.topic.clone() };
    let told = topic.dump().await;
    assert!(told.iter().all(|one| one.key.as_deref() == Some(b"/order-service") && one.partition == 0));
    told.iter().map(|one| serde_json::from_slice(one.value.as_deref().unwrap()).unwrap()).collect()
}

async fn announced_to(world: &World) -> Option<OffsetDateTime> {
    told(world).await.last().map(|last| moment(&last["announcedTo"]))
}

async fn newest_message(world: &World) -> OffsetDateTime {
    let newest = "SELECT max(activity_at) FROM outbox";
    sqlx::query_scalar(newest).fetch_one(&world.database.pool).await.unwrap()
}

/// Waits until all that was written so far is told to be announced.
async fn all_is_told(world: &World) {
    let newest = newest_message(world).await;
    let is_told = async || announced_to(world).await.is_some_and(|to| to >= newest);
    wait_until("everything is told to be announced", seconds(15), is_told).await;
}

/// Each message that is there now was on the topic whenever it was told to be: it stands before the end that was
/// told with a moment not before its own.
async fn everything_told_was_true(world: &World) -> Vec<Value> {
    let mut first = BTreeMap::new();
    for message in world.topic.dump().await {
        let at = OffsetDateTime::parse(&message.text("activityAt").unwrap(), &Rfc3339).unwrap();
        first.entry(message.message_ref().unwrap()).or_insert((at, message.partition, message.offset));
    }
    let written = world.database.number("SELECT count(*) FROM outbox").await;
    assert_eq!(first.len(), usize::try_from(written).unwrap(), "every message is on the topic by now");
    let told = told(world).await;
    for one in &told {
        let announced_to = moment(&one["announcedTo"]);
        for (message_ref, (at, partition, offset)) in &first {
            let end = one["ends"][partition.to_string()].as_i64().unwrap();
            assert!(*at > announced_to || *offset < end, "{message_ref} of {at} at {partition}/{offset}: {one}");
        }
    }
    let moments: Vec<_> = told.iter().map(|one| moment(&one["announcedTo"])).collect();
    assert!(moments.is_sorted(), "it never goes back: {moments:?}");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_told_every_second_and_soon() {
    let world = World::new().await;
    let services = [world.setup().start().await, world.setup().start().await];
    let client = world.client(&services[0]);
    let late = client
        .load_during(4, async {
            let mut late = Vec::new();
            for _ in 0..8 {
                tokio::time::sleep(seconds(1)).await;
                let now: OffsetDateTime =
                    sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&world.database.pool).await.unwrap();
                late.extend(announced_to(&world).await.map(|to| now - to));
            }
            late
        })
        .await;
    assert!(late.len() > 4 && late.iter().filter(|late| **late < seconds(3)).count() > 3, "{late:?}");
    all_is_told(&world).await;
    world.at_rest(seconds(10)).await;
    let last = everything_told_was_true(&world).await.pop().unwrap();
    assert_eq!((&last["source"], &last["topic"]), (&"/order-service".into(), &world.topic.name.as_str().into()));
    assert_eq!((&last["failed"], &last["oldestUnannouncedAt"]), (&0.into(), &Value::Null));
    world.judge().await;
}

/// Holds: Nothing is told to be announced that may still be committed, or is neither acknowledged nor failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_not_committed_yet_is_not_passed() {
    let world = World::new().await;
    let service = world.setup().set("placement.tasks", 2).start().await;
    let client = world.client(&service);
    client.load(20, 4).await;
    all_is_told(&world).await;
    let held = world.insertions_wait("orders", "new.customer_ref LIKE 'held-%'").await;
    let body = testing::order_body("held-1");
    let waits = client.place_under("held", &body);
    let work = async {
        world.a_statement_waits().await;
        let begun = "SELECT min(xact_start) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND application_name LIKE 'order-service%' AND datname = current_database()";
        let begun: OffsetDateTime = sqlx::query_scalar(begun).fetch_one(&world.database.pool).await.unwrap();
        // Others get through meanwhile.
        client.load(50, 2).await;
        let before = told(&world).await.len();
        wait_until("it is told five times more", seconds(20), async || told(&world).await.len() >= before + 5).await;
        let to = announced_to(&world).await.unwrap();
        assert!(to < begun, "{to} is told, an order of {begun} is not announced");
        held.commit().await.unwrap();
    };
    let (_, ()) = tokio::join!(waits, work);
    all_is_told(&world).await;
    world.at_rest(seconds(10)).await;
    everything_told_was_true(&world).await;
    world.judge().await;
}

/// Holds: What is told to be announced never goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stays_true_while_instances_are_killed_and_paused_and_another_tells_within_5_seconds() {
    let world = World::new().await;
    let living = world.setup().start().await;
    let client = world.client(&living);
    for round in 0..3 {
        let doomed = world.setup().set("publisher.queue_capacity", 20).start().await;
        let on_doomed = world.client(&doomed);
        let death = async {
            tokio::time::sleep(seconds(2)).await;
            if round == 1 {
                doomed.pause();
                tokio::time::sleep(seconds(3)).await;
            }
            doomed.kill().await;
            let before = told(&world).await.len();
            wait_until("another one tells it", seconds(5), async || told(&world).await.len() > before).await;
        };
        client.load_during(2, on_doomed.load_during(2, death)).await;
        all_is_told(&world).await;
    }
    world.at_rest(seconds(20)).await;
    everything_told_was_true(&world).await;
    // What was in flight at those killed may come twice.
    let twice: Vec<uuid::Uuid> =
        sqlx::query_scalar("SELECT message_ref FROM outbox").fetch_all(&world.database.pool).await.unwrap();
    world.judge_with(|checker| checker.in_flight(twice)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stays_true_while_answers_to_commits_are_lost() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port()));
    let service = service.failpoint("placement::answer_lost", "10%return").start().await;
    let client = world.client(&service);
    for _ in 0..4 {
        proxy.swallow_answer_with(identity(&service).to_be_bytes());
        client.load(40, 8).await;
    }
    all_is_told(&world).await;
    world.at_rest(seconds(20)).await;
    everything_told_was_true(&world).await;
    world.judge().await;
}

#[tokio::test]
async fn no_order_has_a_time_that_was_told_already_even_where_the_clock_goes_back() {
    let world = World::new().await;
    // Told by a server whose clock was ahead.
    world.database.execute("INSERT INTO announced (announced_to) VALUES (now() + interval '1 hour')").await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let order = client.place_one().await;
    client.change(&order, "cancel").await.unwrap();
    let told_before = "SELECT count(*) FROM outbox WHERE activity_at < now() + interval '55 minutes'";
    assert_eq!(world.database.number("SELECT count(*) FROM outbox").await, 2);
    assert_eq!(world.database.number(told_before).await, 0);
    world.at_rest(seconds(10)).await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_minute_is_told_once_it_is_closed_with_everything_that_was_written_in_it() {
    let world = World::new().await;
    // What was written in minutes before, by an instance that is gone.
    let early = "UPDATE told_counts SET next_minute = date_trunc('minute', now(), 'UTC') - interval '3 minutes'";
    world.database.execute(early).await;
    world.left_by_ended(40, 0).await;
    world.database.execute("UPDATE outbox SET activity_at = activity_at - interval '2 minutes' WHERE seq < 15").await;
    // Where it is in doubt whether a minute was told it is told again.
    let mut dies = world.setup().failpoint("announcer::told", "2*off->return").start().await;
    dies.ended(seconds(20)).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(100, 4).await;
    let whole = "SELECT count(*) FROM told_counts, outbox WHERE activity_at >= next_minute";
    wait_until("every minute is told", seconds(100), async || world.database.number(whole).await == 0).await;
    let mut by_minute = BTreeMap::new();
    for counts in told(&world).await.iter().map(|one| &one["counts"]).filter(|counts| !counts.is_null()) {
        assert_eq!(moment(&counts["to"]) - moment(&counts["from"]), time::Duration::minutes(1));
        let quantities = counts["quantities"].clone();
        let before = by_minute.insert(moment(&counts["from"]), quantities.clone());
        assert!(before.is_none_or(|before| before == quantities), "a minute is told twice, and otherwise");
    }
    let written = "SELECT date_trunc('minute', activity_at, 'UTC'), count(*) FROM outbox GROUP BY 1";
    let written: Vec<(OffsetDateTime, i64)> = sqlx::query_as(written).fetch_all(&world.database.pool).await.unwrap();
    for (minute, count) in &written {
        assert_eq!(by_minute[minute]["ORDER_CREATED"], *count, "{minute}");
    }
    let (first, last) = (by_minute.keys().next().unwrap(), by_minute.keys().next_back().unwrap());
    assert_eq!((*last - *first).whole_minutes() + 1, i64::try_from(by_minute.len()).unwrap(), "none is left out");
    world.at_rest(seconds(10)).await;
    world.judge_with(|checker| checker.in_flight(Vec::new())).await;
}

#[tokio::test]
async fn the_topic_of_progress_that_somebody_deletes_is_made_again() {
    let world = World::new().await;
    // The client finds out that soon.
    let service = world.setup().set("kafka.properties.topic.metadata.refresh.interval.ms", 500).start().await;
    wait_until("it is told", seconds(20), async || announced_to(&world).await.is_some()).await;
    let progress = Topic { name: format!("{}.progress", world.topic.name), ..world.topic.clone() };
    progress.delete().await;
    wait_until("it is made again", seconds(30), async || service.has_logged("the topic was gone")).await;
    wait_until("it is told there", seconds(30), async || announced_to(&world).await.is_some()).await;
    assert_eq!(progress.get("cleanup.policy").await, "compact");
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_placed().await;
}

/// Holds: What was written in the minutes of an outage is told soon after it, and not a minute a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_minutes_of_an_outage_are_told_together_each_once_and_in_their_order() {
    let world = World::new().await;
    let service = world.setup().start().await;
    world.client(&service).place_one().await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    let away = "UPDATE told_counts SET next_minute = date_trunc('minute', now(), 'UTC') - interval '300 minutes'";
    world.database.execute(away).await;
    let told_before = told(&world).await.len();
    let service = world.setup().start().await;
    let all = "SELECT count(*) FROM told_counts WHERE next_minute >= date_trunc('minute', now(), 'UTC') - interval '1 minute'";
    wait_until("all are told", seconds(30), async || world.database.number(all).await == 1).await;
    let told = everything_told_was_true(&world).await.split_off(told_before);
    let minutes: Vec<_> =
        told.iter().filter(|one| !one["counts"].is_null()).map(|one| moment(&one["counts"]["from"])).collect();
    assert!(minutes.len() >= 298, "{}", minutes.len());
    assert!(minutes.windows(2).all(|two| two[1] - two[0] == time::Duration::MINUTE), "{minutes:?}");
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

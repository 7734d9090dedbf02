//! The commands of operators with a shell: `order-service messages`.

use std::time::Duration;

use serde_json::{Value, json};
use testing::{Checker, Received, wait_until};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    messages::failed_and_published,
    world::{World, insertion, seconds},
};

/// The exit code, and what it prints.
async fn run(world: &World, arguments: &[&str]) -> (i32, String) {
    let done = world.setup().run(&[&["messages"], arguments].concat()).await;
    (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
}

async fn json(world: &World, arguments: &[&str]) -> Value {
    let (code, printed) = run(world, &[arguments, &["--json"]].concat()).await;
    assert_eq!(code, 0, "{printed}");
    serde_json::from_str(&printed).unwrap()
}

#[tokio::test]
async fn messages_are_listed_and_shown_as_the_routes_do() {
    let (world, service, client) = failed_and_published(3, 4).await;
    let failed = client.list("/admin/messages").await;
    assert_eq!(json(&world, &["list"]).await, json!(failed));
    assert_eq!(
        json(&world, &["list", "--state", "published", "--limit", "2"]).await,
        client.get("/admin/messages?state=published&limit=2").await.body
    );
    assert_eq!(json(&world, &["list", "--state", "unpublished"]).await, json!([]));
    let one = failed[0]["messageRef"].as_str().unwrap();
    assert_eq!(json(&world, &["show", one]).await, failed[0]);
    let (code, table) = run(&world, &["list"]).await;
    assert!(code == 0 && failed.iter().all(|one| table.contains(one["messageRef"].as_str().unwrap())), "{table}");

    // As wide as the terminal.
    let narrow = world.setup().variable("COLUMNS", "80").run(&["messages", "history", one]).await;
    let printed = String::from_utf8(narrow.stdout).unwrap();
    assert!(printed.contains("failed") && printed.lines().all(|line| line.chars().count() <= 80), "{printed}");

    let unknown = Uuid::now_v7().to_string();
    for (arguments, code) in [
        (vec!["show", &unknown], 1),
        (vec!["show", "x"], 2),
        (vec!["list", "--state", "sent"], 2),
        (vec!["list", "--limit", "0"], 2),
        (vec![], 2),
    ] {
        assert_eq!(run(&world, &arguments).await.0, code, "{arguments:?}");
    }
    assert_eq!(service.stop().await, Some(0));
    let refs = failed.iter().map(|one| one["messageRef"].as_str().unwrap().parse::<Uuid>().unwrap());
    world.judge_with(|checker| checker.failed(refs)).await;
}

#[tokio::test]
async fn failed_messages_are_retried_one_or_all_and_a_dry_run_changes_nothing() {
    let (world, service, client) = failed_and_published(3, 1).await;
    let failed = client.list("/admin/messages").await;
    let one = failed[1]["messageRef"].as_str().unwrap();
    for (which, count) in [(one, 1), ("--all", 3)] {
        let dry_run = ["retry", which, "--dry-run"];
        assert_eq!(run(&world, &dry_run).await, (0, format!("would have retried {count} messages\n")));
        assert_eq!(json(&world, &dry_run).await, json!({"retried": count, "dryRun": true}));
    }
    assert_eq!(json!(client.list("/admin/messages").await), json!(failed));

    assert_eq!(json(&world, &["retry", one, "--reason", "it fits"]).await, json!({"retried": 1, "dryRun": false}));
    assert_eq!(client.list("/admin/audit?action=message_retried").await[0]["reason"], "it fits");
    let it_is_published =
        format!("SELECT count(*) FROM outbox_messages WHERE state = 'published' AND message_ref = '{one}'");
    wait_until("it is published", seconds(20), async || world.database.number(&it_is_published).await == 1).await;
    assert_eq!((world.count("published").await, world.count("failed").await), (2, 2), "it, and no other");
    assert_eq!(run(&world, &["retry", one]).await.0, 1, "it is not failed any more");
    assert_eq!(run(&world, &["retry", &Uuid::now_v7().to_string()]).await.0, 1);
    assert_eq!(run(&world, &["retry"]).await.0, 2);
    assert_eq!(run(&world, &["retry", one, "--all"]).await.0, 2);
    assert_eq!(run(&world, &["retry", "--all"]).await, (0, "retried 2 messages\n".to_owned()));
    wait_until("they are published", seconds(20), async || world.count("published").await == 4).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_span_of_time_is_published_again_in_the_same_bytes() {
    let world = World::new().await;
    let (service, other) = (world.setup().start().await, world.setup().start().await);
    let client = world.client(&service);
    let moment = async || {
        let now: OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(&world.database.pool).await.unwrap();
        now.format(&Rfc3339).unwrap()
    };
    client.load(50, 4).await;
    let from = moment().await;
    client.load(1500, 16).await;
    let to = moment().await;
    client.load(30, 4).await;
    world.at_rest(seconds(10)).await;
    let before = world.topic.dump().await;
    assert_eq!(before.len(), 1580);

    let span = ["rebroadcast", "--from", &from, "--to", &to];
    let dry_run = [&span[..], &["--dry-run"]].concat();
    assert_eq!(json(&world, &dry_run).await, json!({"rebroadcast": 1500, "dryRun": true}));
    assert_eq!((world.count("published").await, world.topic.dump().await.len()), (1580, 1580));
    let done = world.setup().run(&[&["messages"], &span[..]].concat()).await;
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "rebroadcast 1500 messages\n");
    // Told before they are counted.
    assert!(String::from_utf8(done.stderr).unwrap().starts_with("it is under way"));
    let open = "SELECT count(*) FROM rebroadcasts WHERE done_at IS NULL";
    wait_until("it is done", seconds(10), async || world.database.number(open).await == 0).await;
    assert_eq!(world.count("published").await, 1580, "what is published stays so");
    let after = world.topic.dump().await;
    let again: Vec<_> = after.iter().filter(|one| !before.contains(one)).map(bytes).collect();
    let first: Vec<_> = before.iter().map(bytes).collect();
    assert_eq!((after.len(), again.len()), (1580 + 1500, 1500), "each of the span once more, and no other");
    assert!(again.iter().all(|one| first.contains(one)), "byte by byte");

    assert_eq!(run(&world, &["rebroadcast", "--from", &from]).await.0, 2);
    assert_eq!(run(&world, &["rebroadcast", "--from", "yesterday", "--to", &to]).await.0, 2);
    // Nothing is between these, which looks like success.
    for (from, to) in [(&to, &from), (&from, &from)] {
        for command in ["rebroadcast", "verify"] {
            let done = world.setup().run(&["messages", command, "--from", from, "--to", to]).await;
            let told = String::from_utf8(done.stderr).unwrap();
            assert_eq!((done.status.code(), told.as_str()), (Some(2), "--from: must be before --to\n"), "{command}");
        }
    }
    assert_eq!(world.database.number("SELECT count(*) FROM rebroadcasts").await, 1);
    assert_eq!((service.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge_with(Checker::duplicates_allowed).await;
}

#[tokio::test]
async fn a_span_is_published_again_however_many_messages_lie_before_it_and_behind_it() {
    let world = World::new().await;
    let before = "UPDATE outbox SET activity_at = now() - interval '2 hours';
        INSERT INTO instances (instance_id, ended_at, closed_at, done_at) VALUES (900, now(), now(), now())";
    for statement in [&insertion(25_000, 900), before] {
        world.database.execute(statement).await;
    }
    let service = world.setup().start().await;
    world.client(&service).load(20, 4).await;
    wait_until("they are announced", seconds(10), async || world.topic.dump().await.len() == 20).await;
    let now: OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(&world.database.pool).await.unwrap();
    world.database.execute(&insertion(45_000, 900)).await;
    let [from, to] = [now - Duration::from_hours(1), now].map(|moment| moment.format(&Rfc3339).unwrap());
    let span = ["rebroadcast", "--from", &from, "--to", &to];
    assert_eq!(run(&world, &span).await, (0, "rebroadcast 20 messages\n".to_owned()));
    let open = "SELECT count(*) FROM rebroadcasts WHERE done_at IS NULL";
    wait_until("it is done", seconds(20), async || world.database.number(open).await == 0).await;
    assert_eq!(world.topic.dump().await.len(), 40);
    assert_eq!(service.stop().await, Some(0));
    let never_sent = "DELETE FROM outbox WHERE instance = 900; DELETE FROM orders WHERE customer_ref LIKE 'left-%'";
    world.database.execute(never_sent).await;
    world.judge_with(Checker::duplicates_allowed).await;
}

fn bytes(message: &Received) -> Received {
    Received { partition: 0, offset: 0, ..message.clone() }
}

/// Holds: A log is never called settled beyond a message that is neither published nor failed.
#[tokio::test]
async fn behind_a_message_that_waits_what_is_published_is_published_again_and_it_is_not_forgotten() {
    let world = World::new().await;
    world.topic.create(2, &[("max.message.bytes", "12000")]).await;
    let setup = world.setup().set("publisher.max_failures", 1000).set("publisher.backoff_initial", "15s");
    let service = setup.start().await;
    // The first of its log is refused, and waits.
    world.left_by_ended(200, 1).await;
    wait_until("the others are published", seconds(20), async || world.count("published").await == 199).await;
    let span = ["rebroadcast", "--from", "2020-01-01T00:00:00Z", "--to", "2099-01-01T00:00:00Z"];
    assert_eq!(run(&world, &span).await, (0, "rebroadcast 199 messages\n".to_owned()));
    let open = "SELECT count(*) FROM rebroadcasts WHERE done_at IS NULL";
    wait_until("it is done", seconds(10), async || world.database.number(open).await == 0).await;
    assert_eq!(world.topic.dump().await.len(), 2 * 199);
    // Nor is the one that waits forgotten by whoever adopts the log next.
    world.topic.set("max.message.bytes", "100000").await;
    service.kill().await;
    let service = world.setup().start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.duplicates_allowed().failures_allowed()).await;
}

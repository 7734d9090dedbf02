//! A gap in what was read outlives whoever found it, until an operator closes it.

use activity_service::{
    gaps::{self, GapState},
    place::{Jump, Partition},
};
use rdkafka::producer::Producer;
use serde_json::{Value, json};
use testing::wait_until;

use crate::{
    lag::{send_open, transactional},
    world::{World, many, seconds},
};

/// The exit code, and what it prints.
async fn run(world: &World, arguments: &[&str]) -> (i32, String) {
    let setup = world.setup().variable("USER", "somebody");
    let done = setup.run(&[&["gaps"], arguments].concat()).await;
    (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
}

async fn list(world: &World, state: &str) -> Vec<Value> {
    let (code, printed) = run(world, &["list", "--state", state, "--json"]).await;
    assert_eq!(code, 0, "{printed}");
    serde_json::from_str(&printed).unwrap()
}

/// Holds: No offset is passed without a message and without a row that says so.
#[tokio::test]
async fn a_gap_is_kept_although_the_instance_that_passed_it_is_killed_before_it_can_tell() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.run_to_rest().await;
    world.produce(&many(20)).await;
    world.topic().delete_before(0, 18).await;
    let mut killed = world.setup().failpoint("consumer::after_commit", "return").start().await;
    killed.ended(seconds(20)).await;
    assert_eq!(world.counted().await, 22);

    let service = world.setup().set("metrics.database_every", "100ms").start().await;
    let told = async |name: &str| service.metrics().await.sum(name);
    wait_until("it is told", seconds(20), async || told("activity_open_gaps").await == 1.0).await;
    assert_eq!(told("activity_open_gap_offsets").await, 8.0);
    let open = list(&world, "open").await;
    assert_eq!((&open[0]["from"], &open[0]["to"], open.len()), (&json!(10), &json!(18), 1));
    assert_eq!((&open[0]["topic"], &open[0]["partition"]), (&json!(world.topic().name), &json!(0)));
    let id = open[0]["id"].to_string();
    for (arguments, code) in [
        (vec!["close", &id], 2),
        (vec!["close", &id, "--reason", " "], 2),
        (vec!["close", "0", "--reason", "x"], 1),
        (vec!["list", "--limit", "0"], 2),
        (vec![], 2),
    ] {
        assert_eq!(run(&world, &arguments).await.0, code, "{arguments:?}");
    }
    let (code, printed) = run(&world, &["close", &id, "--reason", "sent again", "--json"]).await;
    assert_eq!(code, 0, "{printed}");
    let closed = list(&world, "closed").await;
    assert_eq!((closed[0]["closedBy"].as_str(), closed[0]["reason"].as_str()), (Some("somebody"), Some("sent again")));
    assert_eq!(run(&world, &["close", &id, "--reason", "once more"]).await.0, 1);
    let (code, table) = run(&world, &["list", "--state", "closed"]).await;
    assert!(code == 0 && table.contains("sent again"), "{table}");
    wait_until("none is open", seconds(20), async || told("activity_open_gaps").await == 0.0).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn what_was_deleted_of_a_partition_before_anything_of_it_was_read_is_a_gap() {
    let world = World::new(1).await;
    world.produce(&many(20)).await;
    world.topic().delete_before(0, 8).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    wait_until("the gap is open", seconds(20), async || !list(&world, "open").await.is_empty()).await;
    let open = list(&world, "open").await;
    assert_eq!((&open[0]["from"], &open[0]["to"], open.len()), (&json!(0), &json!(8), 1));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn what_was_deleted_unread_behind_the_last_message_is_a_gap_too() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.run_to_rest().await;
    world.produce(&many(5)).await;
    world.topic().delete_before(0, 15).await;
    let service = world.setup().start().await;
    wait_until("the gap is open", seconds(30), async || !list(&world, "open").await.is_empty()).await;
    let open = list(&world, "open").await;
    assert_eq!((&open[0]["from"], &open[0]["to"], open.len()), (&json!(10), &json!(15), 1));
    assert_eq!(service.stop().await, Some(0));
    world.produce(&many(1)).await;
    world.run_to_rest().await;
    world.judge().await;
}

#[tokio::test]
async fn holes_that_never_held_a_message_are_no_gaps() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    let topic = world.topic().clone();
    let given_up = tokio::task::spawn_blocking(move || {
        let producer = transactional(&topic);
        send_open(&producer, &topic, &many(3));
        producer.abort_transaction(seconds(30)).unwrap();
    });
    given_up.await.unwrap();
    world.produce(&many(10)).await;
    let service = world.setup().start().await;
    world.has_counted(20, seconds(20)).await;
    // It was noted when it was passed.
    let numbers = "SELECT nextval(pg_get_serial_sequence('consumption_gaps', 'gap_id'))";
    assert!(world.database.number(numbers).await > 1);
    let left = "SELECT count(*) FROM consumption_gaps";
    wait_until("it is forgotten", seconds(20), async || world.database.number(left).await == 0).await;
    for line in ["messages were deleted before they were read", "messages were jumped over: they are read again"] {
        assert!(!service.has_logged(line), "{line}");
    }
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: What a partition lost before anything of it was read is told, and holds nothing up for ever.
#[tokio::test]
async fn a_partition_that_was_emptied_before_anything_of_it_was_counted_has_a_position_and_a_gap() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.topic().delete_before(0, 10).await;
    let service = world.setup().start().await;
    wait_until("it is told", seconds(30), async || list(&world, "open").await.len() == 1).await;
    let open = list(&world, "open").await;
    assert_eq!((&open[0]["from"], &open[0]["to"]), (&json!(0), &json!(10)));
    assert_eq!(world.database.number("SELECT next_offset FROM consumer_positions").await, 10);
    world.produce(&many(5)).await;
    world.has_counted(5, seconds(20)).await;
    world.at_rest().await;
    assert_eq!(list(&world, "open").await.len(), 1);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// A topic that was made anew loses the same offsets once more, and more of them.
#[tokio::test]
async fn a_gap_that_begins_where_one_is_open_already_makes_it_longer() {
    let world = World::new(1).await;
    let mut connection = world.database.pool.acquire().await.unwrap();
    for (came, state) in [(5, GapState::Open), (8, GapState::Unchecked), (3, GapState::Unchecked)] {
        let jump = Jump { expected: 0, came };
        gaps::note(&mut connection, &[(Partition::new("t", 0), jump)], state).await.unwrap();
    }
    let open = list(&world, "open").await;
    assert_eq!((open.len(), &open[0]["from"], &open[0]["to"]), (1, &json!(0), &json!(8)), "{open:?}");
    world.judge_nothing_counted().await;
}

//! Every fail point of the sources, as an error and as a pause that is longer than a take-over takes: one
//! of two instances meets it again and again, under load and with everything going on that leads to one.
//! Takes minutes, so it runs with `make chaos`.

use std::{fs, path::Path, time::Duration};

use testing::{Client, FailPoint, fail_points, wait_until};
use tokio::task::LocalSet;
use uuid::Uuid;

use crate::world::{World, seconds};

/// Those of the service and of its outbox, but for the door that it does not use.
fn points() -> Vec<FailPoint> {
    let all = fail_points(&["order-service", "shared/outbox"]);
    all.into_iter().filter(|point| !point.name.starts_with("transaction::")).collect()
}

#[test]
fn every_fail_point_that_kills_is_named_by_a_test_in_which_it_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let tests: String =
        fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let points = points().into_iter().filter(|point| point.kills);
    let untested: Vec<_> = points.filter(|point| !tests.contains(&format!("\"{}\"", point.name))).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

/// `takeover_after` is 1 s here.
const PAUSE: &str = "1*sleep(1500)->1*print(met)->3*sleep(700)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make chaos"]
async fn no_error_and_no_pause_at_any_fail_point_loses_a_message_or_sends_it_twice() {
    // Each a task, so that the others are run where one fails.
    let cells = LocalSet::new();
    let (mut broken, mut count) = (Vec::new(), 0);
    for point in points().iter().filter(|point| !point.name.starts_with("http::")) {
        let error = point.fails.map(|fails| format!("2*off->1*{fails}->1*print(met)->5*off->3*{fails}->off"));
        for action in error.into_iter().chain([PAUSE.to_owned()]) {
            let cell = format!("{} {action}", point.name);
            println!("{cell}");
            count += 1;
            if let Err(panicked) = cells.run_until(cells.spawn_local(meet(point.clone(), action))).await {
                broken.push(format!("{cell}: {panicked}"));
            }
        }
    }
    assert!(broken.is_empty(), "{} of {count}:\n{}", broken.len(), broken.join("\n"));
}

async fn meet(point: FailPoint, action: String) {
    let world = World::new().await;
    world.topic.create(2, &[("max.message.bytes", "12000")]).await;
    let setup = world.setup().set("publisher.queue_capacity", 300).set("publisher.max_failures", 1);
    let setup = setup.set("retention.every", "100ms").set("partitions.every", "100ms");
    let other = setup.start().await;
    // Its identity is replaced now and then.
    let doubtful =
        setup.clone().failpoint("retry::answer_lost", "2*off->1*return->6*off->1*return->6*off->1*return->off");
    let setup = if point.name == "retry::answer_lost" { setup } else { doubtful };
    let met = setup.failpoint(&point.name, &action).start().await;
    let clients = (world.client(&met), world.client(&other));
    let going_on = async {
        let done = async {
            for round in 0.. {
                provoke(&world, &clients.0, round).await;
                // The last round comes after the point was met as often as it does anything.
                if round >= 30 && met.log().iter().any(|line| line["message"] == "met") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let in_time = tokio::time::timeout(seconds(60), done).await;
        in_time.unwrap_or_else(|_| panic!("{} is not met", point.name));
    };
    clients.0.load_during(3, clients.1.load_during(3, going_on)).await;
    wait_until("everything is sent", seconds(60), async || world.count("unpublished").await == 0).await;
    assert_eq!((met.stop().await, other.stop().await), (Some(0), Some(0)));
    let spoilt = "SELECT message_ref FROM rejected_messages";
    let failed: Vec<Uuid> = sqlx::query_scalar(spoilt).fetch_all(&world.database.pool).await.unwrap();
    world.judge_with(|checker| checker.failed(failed)).await;
}

/// Logs to adopt, messages to retry, messages the broker refuses, orders that change, and now and then an identity that is
/// gone.
async fn provoke(world: &World, client: &Client, round: u32) {
    world.left_by_ended(20, 1).await;
    world.left_to_be_retried().await;
    world.old_day().await;
    let (placed, changed) = (world.history.acknowledged(), world.history.changed());
    for order_ref in placed.keys().filter(|order_ref| !changed.contains_key(*order_ref)).take(3) {
        // What becomes of it is judged at the end.
        drop(client.change(order_ref, if round.is_multiple_of(2) { "complete" } else { "cancel" }).await);
    }
    if round.is_multiple_of(10) {
        let gone = "SELECT (extract(epoch FROM now())::bigint << 20) | floor(random() * 1048576)::bigint";
        world.left_behind(3, world.database.number(gone).await).await;
    }
}

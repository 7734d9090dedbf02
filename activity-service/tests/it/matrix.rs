//! Every fail point of the sources. One of two instances meets it, with good and bad messages coming in
//! and everything going on that leads to one; then what is outside has to agree.

use std::{cell::Cell, future::Future};

use testing::{Client, FailPoint, Received, Setup, fail_points};
use time::OffsetDateTime;
use tokio::task::LocalSet;

use crate::{
    completeness::{announcement, progress_topic, tell, text},
    operator::{EATEN, eaten},
    world::{World, client, created, dated, seconds, undated},
};

/// So many at once: most of a cell is waiting for the group.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_fail_point_another_instance_goes_on_and_counts_everything_once() {
    let points = fail_points(&["activity-service"]).into_iter().filter(|point| point.kills);
    each(points.map(|point| (point, "2*off->return".to_owned())).collect(), is_killed).await;
}

/// Holds: No error and no pause at any fail point loses a message or counts it twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make chaos"]
async fn no_error_and_no_pause_at_any_fail_point_loses_a_message_or_counts_it_twice() {
    let points = fail_points(&["activity-service"]).into_iter().filter(|point| !point.name.starts_with("http::"));
    let cells = points.flat_map(|point| {
        let error = point.fails.map(|fails| format!("2*off->1*{fails}->1*print(met)->5*off->3*{fails}->off"));
        let pause = "2*off->1*sleep(1500)->1*print(met)->3*sleep(700)->off".to_owned();
        error.into_iter().chain([pause]).map(move |action| (point.clone(), action))
    });
    each(cells.collect(), meets).await;
}

/// Runs a cell for each; the others are run where one fails.
async fn each<F: Future<Output = ()> + 'static>(cells: Vec<(FailPoint, String)>, run: fn(FailPoint, String) -> F) {
    let tasks = LocalSet::new();
    let mut broken = Vec::new();
    for some in cells.chunks(AT_ONCE) {
        let started: Vec<_> =
            some.iter().cloned().map(|(point, action)| tasks.spawn_local(run(point, action))).collect();
        for ((point, action), cell) in some.iter().zip(started) {
            let ended = tasks.run_until(cell).await;
            println!("{} {action}: {}", point.name, if ended.is_ok() { "holds" } else { "BROKEN" });
            broken.extend(ended.err().map(|panicked| format!("{} {action}: {panicked}", point.name)));
        }
    }
    assert!(broken.is_empty(), "{} of {}:\n{}", broken.len(), cells.len(), broken.join("\n"));
}

async fn is_killed(point: FailPoint, action: String) {
    let world = World::new(2).await;
    progress_topic(&world).await;
    let other = busy(&world).start().await;
    let mut dying = busy(&world).failpoint(&point.name, &action).start().await;
    let client = client(&dying);
    let dies = async {
        tokio::select! {
            ended = dying.ended(seconds(60)) => ended,
            never = provoke(&world, &client) => never,
        }
    };
    let (_, ended) = world.topic().produce_during(any_kind(), dies).await;
    assert_eq!(ended.code(), None, "{}: killed by a signal", point.name);
    world.recount().no_offset_passes_the_database().await;
    world.at_rest().await;
    assert_eq!(other.stop().await, Some(0));
    world.judge().await;
}

async fn meets(point: FailPoint, action: String) {
    let world = World::new(2).await;
    progress_topic(&world).await;
    let other = busy(&world).start().await;
    let met = busy(&world).failpoint(&point.name, &action).start().await;
    let client = client(&met);
    let going_on = async {
        tokio::select! {
            () = testing::wait_until(&point.name, seconds(60), async || met.has_logged("met")) => {}
            never = provoke(&world, &client) => never,
        }
        // What comes now meets the point as often as it does anything.
        world.has_counted(world.counted().await + 1000, seconds(60)).await;
    };
    world.topic().produce_during(any_kind(), world.recount().while_the_figures_agree(going_on)).await;
    world.at_rest().await;
    assert_eq!((met.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

/// Small batches, and purges one after the other. Nothing is old enough to go.
fn busy(world: &World) -> Setup {
    let setup = world.setup().set("consumer.batch_max_messages", 100).set("consumer.batch_max_wait", "5ms");
    setup.set("retention.every", "100ms").set("retention.processed_keys", "0s")
}

/// Good messages, some of them undated or of days long ago, some of a type that is not known at first, and some that nobody can read.
fn any_kind() -> impl Fn() -> Received {
    let number = Cell::new(0_u32);
    move || {
        number.set(number.get() + 1);
        match number.get() % 20 {
            0 => created().with_value("not json"),
            1 => eaten(),
            2 => undated(),
            3 => dated(&format!("2026-09-{:02}", 1 + number.get() / 20 % 28), number.get().into()),
            _ => created(),
        }
    }
}

/// Registers types, lets everything be replayed and tells of progress, again and again. The instance may die meanwhile.
async fn provoke<T>(world: &World, client: &Client) -> T {
    for round in 0_u32.. {
        let code = if round == 5 { EATEN.to_owned() } else { format!("ORDER_MADE_UP_{round}") };
        let body = br#"{"activityTypeName":"A Type"}"#.to_vec();
        let json = [("content-type", "application/json")];
        drop(client.ask(reqwest::Method::PUT, &format!("/activity-types/{code}"), &json, body).await);
        drop(client.ask(reqwest::Method::POST, "/admin/quarantine/replay", &json, b"{}".to_vec()).await);
        tell(world, &[announcement(world, &text(OffsetDateTime::now_utc()), 0)]).await;
        tokio::time::sleep(seconds(1) / 10).await;
    }
    unreachable!("rounds do not end")
}

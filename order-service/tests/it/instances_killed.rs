//! One of two instances dies at each step there is, under load. The other one takes over in time, without
//! a restart; what comes twice was in flight at the one that died.

use std::time::Duration;

use testing::{Service, Setup, UNPUBLISHED, wait_until};
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use crate::world::{World, identity, seconds};

/// `takeover_after`, 1 s here, and the 2 s on top of it that are promised.
const IN_TIME: Duration = Duration::from_secs(3);

/// Each of these fills the machine: side by side they would ask how fast it is, not who takes over and when.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Kills one of two instances where `point` says, while both are under load and `provoke` is done again
/// and again. `setup` is of the one that dies.
async fn dies_at(point: &str, action: &str, world: World, setup: Setup, provoke: impl AsyncFn(&World)) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut dying = setup.failpoint(point, action).start().await;
    let other = world.setup().set("publisher.queue_capacity", 200).set("publisher.max_failures", 1).start().await;
    let client = world.client(&dying);
    let (on_dying, on_other) = (client.clone(), world.client(&other));
    let death = async {
        let killed = async {
            loop {
                if let Ok(ended) = tokio::time::timeout(Duration::from_millis(50), dying.ended(seconds(60))).await {
                    break ended;
                }
                provoke(&world).await;
            }
        };
        let ended = tokio::time::timeout(seconds(20), killed).await.unwrap_or_else(|_| panic!("{point} is not met"));
        assert_eq!(ended.code(), None, "{point}: by a signal");
        let died_at = Instant::now();
        let in_flight = unpublished_of(&world, &dying).await;
        wait_until(&format!("{point}: its messages are taken over"), IN_TIME, async || {
            unpublished_of(&world, &dying).await.is_empty()
                && world.database.number("SELECT count(*) FROM instances WHERE ended_at IS NULL").await == 1
        })
        .await;
        assert!(died_at.elapsed() < IN_TIME);
        in_flight
    };
    let dead = on_dying.load_during(4, on_other.load_during(4, death));
    let in_flight = dead.await;
    world.at_rest(seconds(10)).await;
    assert_eq!(other.stop().await, Some(0), "{point}");
    let spoilt = "SELECT message_ref FROM rejected_messages";
    let failed: Vec<Uuid> = sqlx::query_scalar(spoilt).fetch_all(&world.database.pool).await.unwrap();
    world.judge_with(|checker| checker.in_flight(in_flight).failed(failed)).await;
}

/// Of every identity it has had.
pub async fn unpublished_of(world: &World, service: &Service) -> Vec<Uuid> {
    let logs: Vec<i64> = service.log().iter().filter_map(|line| line["instance"].as_i64()).collect();
    let mine = format!(
        "SELECT message_ref FROM {UNPUBLISHED} AS m JOIN instances i ON i.instance_id = m.instance
        WHERE m.instance = ANY($1) OR i.adopter = ANY($1)
            OR EXISTS (SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref AND r.holder = ANY($1))"
    );
    sqlx::query_scalar(&mine).bind(logs).fetch_all(&world.database.pool).await.unwrap()
}

/// Each point in a world of its own.
async fn at_each(points: &[(&str, &str)], setup: impl Fn(&World) -> Setup, provoke: impl AsyncFn(&World)) {
    for (point, action) in points {
        let world = World::new().await;
        let setup = setup(&world);
        dies_at(point, action, world, setup, &provoke).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_at_any_step_of_placing_is_replaced_in_time() {
    let points = [
        ("placement::before", "30*off->return"),
        ("placement::committed", "30*off->return"),
        ("placement::announced", "30*off->return"),
    ];
    at_each(&points, World::setup, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_at_any_step_of_sending_is_replaced_in_time() {
    let points = [
        ("publisher::before_send", "20*off->return"),
        ("publisher::handed_over", "20*off->return"),
        ("marks::delivered", "20*off->return"),
        ("marks::published", "20*off->return"),
    ];
    at_each(&points, World::setup, async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_at_any_step_of_adopting_is_replaced_in_time() {
    let points = [
        ("adoption::before", "5*off->return"),
        ("adoption::committed", "2*off->return"),
        ("adoption::before_reading", "2*off->return"),
        ("adoption::read", "2*off->return"),
        ("retry::before", "return"),
    ];
    let small = |world: &World| world.setup().set("publisher.queue_capacity", 50);
    let provoke = async |world: &World| {
        world.left_by_ended(60, 0).await;
        world.left_to_be_retried().await;
    };
    at_each(&points, small, provoke).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_while_it_keeps_partitions_and_forgets_is_replaced_in_time() {
    let points = [
        ("partitions::before_making", "3*off->return"),
        ("partitions::before_dropping", "return"),
        ("partitions::dropped", "return"),
        ("retention::purged", "3*off->return"),
        ("retention::before_forgetting", "3*off->return"),
    ];
    let often = |world: &World| world.setup().set("partitions.every", "100ms").set("retention.every", "100ms");
    at_each(&points, often, World::old_day).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_while_it_records_rejections_is_replaced_in_time() {
    for point in ["marks::rejected", "marks::rejections_recorded"] {
        let world = World::new().await;
        world.topic.create(2, &[("max.message.bytes", "12000")]).await;
        let setup = world.setup().set("publisher.max_failures", 1);
        let setup = setup.set("publisher.queue_capacity", 300);
        let spoil = async |world: &World| {
            world.left_by_ended(5, 2).await;
        };
        dies_at(point, "return", world, setup, spoil).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_while_it_looks_or_ends_another_one_is_replaced_in_time() {
    at_each(&[("session::looked", "10*off->return")], World::setup, async |_| {}).await;
    let points = [("session::before_end_other", "return"), ("session::ended_other", "return")];
    at_each(&points, World::setup, async |world| {
        let gone = "SELECT (extract(epoch FROM now())::bigint << 20) | floor(random() * 1048576)::bigint";
        world.left_behind(3, world.database.number(gone).await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_while_it_takes_another_identity_is_replaced_in_time() {
    let points =
        [("session::before_replace", "return"), ("session::ended_own", "return"), ("session::took_another", "return")];
    let doubtful = |world: &World| world.setup().failpoint("retry::answer_lost", "return");
    at_each(&points, doubtful, async |world| world.left_to_be_retried().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_one_after_the_other_under_load_instances_lose_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let world = World::new().await;
    let setup = world.setup().set("publisher.queue_capacity", 300);
    let mut running = vec![setup.start().await, setup.start().await];
    let client = world.client(&running[0]);
    let mut in_flight = Vec::new();
    client
        .load_during(16, async {
            for round in 0..6 {
                running.push(setup.start().await);
                client.route_to(running.iter().map(Service::api));
                tokio::time::sleep(Duration::from_millis(200 + 70 * round)).await;
                let killed = running.remove(0);
                let log = identity(&killed);
                killed.kill().await;
                client.route_to(running.iter().map(Service::api));
                let mine = format!(
                    "SELECT message_ref FROM {UNPUBLISHED} AS m JOIN instances i ON i.instance_id = m.instance
                    WHERE m.instance = {log} OR i.adopter = {log}"
                );
                let mine: Vec<Uuid> = sqlx::query_scalar(&mine).fetch_all(&world.database.pool).await.unwrap();
                in_flight.extend(mine);
            }
        })
        .await;
    world.at_rest(seconds(10)).await;
    assert!(world.history.acknowledged().len() > 1000);
    for instance in running {
        assert_eq!(instance.stop().await, Some(0));
    }
    world.judge_with(|checker| checker.in_flight(in_flight)).await;
}

//! A type is registered while its messages come: each is counted, once.

use serde_json::json;
use testing::wait_until;

use crate::{
    operator::{EATEN, Operator, eaten},
    world::{World, created, many, seconds},
};

#[tokio::test]
async fn what_waited_for_a_type_is_counted_in_pages_and_nothing_else_is() {
    let world = World::new(3).await;
    let mut messages: Vec<_> = std::iter::repeat_with(eaten).take(2500).collect();
    messages.extend(many(10));
    messages.extend([created().with_value("not json"), eaten().with_field("activityTypeCode", "ORDER_DRUNK")]);
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (10, 2502));
    let operator = Operator::of(&service);
    let answer = operator.register(EATEN, "Order Eaten").await;
    assert_eq!((answer.status, answer.body), (201, json!({"counted": 2500, "duplicates": 0})));
    let answer = operator.register(EATEN, "Eaten").await;
    assert_eq!((answer.status, answer.body), (200, json!({"counted": 0, "duplicates": 0})));
    assert_eq!((world.counted().await, world.kept("waiting").await), (2510, 2));
    let audited = "SELECT count(*) FROM quarantine WHERE state = 'counted' AND resolved_by = 'anonymous'
        AND resolution = 'its type was registered' AND resolved_at <= now()";
    assert_eq!(world.database.number(audited).await, 2500);
    let name =
        "SELECT count(*) FROM activity_types WHERE (activity_type_code, activity_type_name) = ('ORDER_EATEN', 'Eaten')";
    assert_eq!(world.database.number(name).await, 1);
    let before = world.content().await;
    assert_eq!(service.stop().await, Some(0));
    world.read_again().await;
    assert_eq!(world.content().await, before);
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registered_through_two_instances_at_once_under_load_no_message_is_left_behind() {
    let world = World::new(4).await;
    let setup = world.setup().set("consumer.batch_max_messages", 100).set("consumer.batch_max_wait", "5ms");
    let (one, other) = tokio::join!(setup.start(), setup.start());
    let registering = async {
        wait_until("some wait", seconds(20), async || world.kept("waiting").await > 1000).await;
        let (first, second) = (Operator::of(&one), Operator::of(&other));
        let (first, second) = tokio::join!(first.register(EATEN, "Order Eaten"), second.register(EATEN, "Order Eaten"));
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201]);
        // What comes now is counted at once.
        world.has_counted(world.counted().await + 500, seconds(20)).await;
    };
    let (written, ()) = world.topic().produce_during(eaten, world.recount().while_the_figures_agree(registering)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, i64::try_from(written).unwrap());
    assert_eq!(world.kept("waiting").await, 0);
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn a_batch_that_took_the_type_for_unknown_is_waited_for() {
    let world = World::new(1).await;
    // Long enough to come in between, and shorter than a registration waits.
    let service = world.setup().failpoint("consumer::kept", "1*sleep(1500)").start().await;
    world.produce(&[eaten()]).await;
    let judged = "SELECT count(*) FROM pg_stat_activity
        WHERE state = 'idle in transaction' AND datname = current_database()";
    wait_until("the batch is judged", seconds(20), async || world.database.number(judged).await == 1).await;
    let answer = Operator::of(&service).register(EATEN, "Order Eaten").await;
    assert_eq!((answer.status, answer.body), (201, json!({"counted": 1, "duplicates": 0})));
    world.at_rest().await;
    assert_eq!((world.counted().await, world.kept("counted").await), (1, 1));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

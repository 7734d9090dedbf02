//! A graceful stop among several instances: nobody waits, nothing fails, nothing comes twice.

use std::time::Duration;

use testing::{Kafka, wait_until};

use crate::world::{TAKEN_OVER, World, identity, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_every_instance_under_load_fails_no_request_and_doubles_no_message() {
    let world = World::new().await;
    // Long enough that whoever sends the requests learns of it in time on a machine that stands still for a second.
    let setup = world
        .setup()
        .set("shutdown.readiness_delay", "4s")
        .set("instance.takeover_after", "60s")
        .set("publisher.queue_capacity", 300);
    let mut running = vec![setup.start().await, setup.start().await, setup.start().await];
    let client = world.client(&running[0]);
    let apis = |running: &[testing::Service]| running.iter().map(testing::Service::api).collect::<Vec<_>>();
    client.route_to(apis(&running));
    client
        .load_during(16, async {
            for _ in 0..3 {
                running.push(setup.start().await);
                let mut old = running.remove(0);
                old.terminate();
                wait_until("it is not ready", seconds(3), async || old.probe("ready").await == Some(503)).await;
                client.route_to(apis(&running));
                assert_eq!(old.ended(seconds(15)).await.code(), Some(0));
                assert!(!old.has_logged(TAKEN_OVER));
            }
        })
        .await;
    assert_eq!(world.history.others(), [].into(), "every request is answered 201");
    assert!(world.history.acknowledged().len() > 1000);
    world.at_rest(seconds(10)).await;
    for instance in running {
        assert!(!instance.has_logged(TAKEN_OVER), "who stops ends its own identity");
        assert_eq!(instance.stop().await, Some(0));
    }
    world.judge().await;
}

#[tokio::test]
async fn what_still_lingers_at_a_stop_is_sent_at_once() {
    let world = World::new().await;
    let setup = world.setup().failpoint("publisher::lingers", "return(60000)").set("instance.takeover_after", "60s");
    let (mut stopped, other) = (setup.start().await, setup.start().await);
    world.client(&stopped).load(200, 8).await;
    assert_eq!(world.count("unpublished").await, 200, "the batch is still filling");
    stopped.terminate();
    world.at_rest(seconds(3)).await;
    assert_eq!(stopped.ended(seconds(5)).await.code(), Some(0));
    assert!(!other.has_logged(TAKEN_OVER));
    world.judge().await;
}

#[tokio::test]
async fn what_a_stopping_instance_cannot_send_another_one_sends_at_once() {
    let nowhere = Kafka::absent().await;
    let world = World::new().await;
    let setup = world.setup().set("instance.takeover_after", "60s").set("shutdown.grace", "1s");
    let other = setup.start().await;
    world.client(&other).place_one().await;
    // Only this one does not reach Kafka.
    let mut stopped = setup.set("kafka.brokers", nowhere.brokers()).start().await;
    let me = identity(&stopped);
    let client = world.client(&stopped);
    client.load(300, 8).await;
    assert_eq!(world.unpublished_of(me).await, 300);
    stopped.terminate();
    assert_eq!(stopped.ended(seconds(5)).await.code(), Some(4), "not everything was sent");
    world.at_rest(seconds(2)).await;
    assert!(!other.has_logged(TAKEN_OVER), "it was handed over, not taken");
    assert_eq!(other.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_stopped_by_signal_right_after_it_was_paused_loses_and_doubles_nothing() {
    let world = World::new().await;
    let (mut stopped, other) = (world.setup().start().await, world.setup().start().await);
    let client = world.client(&stopped);
    client.route_to([stopped.api(), other.api()]);
    client
        .load_during(8, async {
            stopped.pause();
            stopped.terminate();
            tokio::time::sleep(Duration::from_millis(1500)).await;
            stopped.resume();
            assert_eq!(stopped.ended(seconds(15)).await.code(), Some(0));
        })
        .await;
    world.at_rest(seconds(10)).await;
    assert_eq!(other.stop().await, Some(0));
    world.judge().await;
}

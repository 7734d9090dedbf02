use std::time::Duration;

use testing::{Kafka, Raw, Signal, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{World, seconds};

const REQUEST: &[u8] = b"GET /orders/OS000001-ORD HTTP/1.1\r\nhost: it\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_fails_no_request_during_the_delay_and_loses_and_doubles_nothing() {
    let world = World::new().await;
    let mut service = world.setup().set("shutdown.readiness_delay", "3s").start().await;
    let client = world.client(&service);
    client
        .load_during(16, async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            service.terminate();
            wait_until("it is not ready", Duration::from_millis(500), async || {
                service.probe("ready").await == Some(503)
            })
            .await;
            // Load balancers go on for most of the delay.
            tokio::time::sleep(seconds(2)).await;
        })
        .await;
    assert_eq!(world.history.others(), [].into());
    assert_eq!(service.ended(seconds(15)).await.code(), Some(0));
    // Nobody cleans up afterwards: what was accepted is announced before the process ends.
    assert_eq!(world.count("unpublished").await, 0);
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_again_and_again_under_load_it_ends_with_0_and_announces_each_order_once() {
    let world = World::new().await;
    for _ in 0..4 {
        let mut service = world.setup().set("publisher.queue_capacity", 100).start().await;
        let client = world.client(&service);
        let code = client
            .load_during(16, async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                service.terminate();
                service.ended(seconds(15)).await.code()
            })
            .await;
        assert_eq!(code, Some(0));
    }
    let service = world.setup().start().await;
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_connection_whose_first_request_is_on_its_way_when_the_drain_begins_is_answered() {
    let world = World::new().await;
    let mut service = world.setup().start().await;
    let api = service.api();
    let mut on_their_way = Vec::new();
    for sent in [0, 1, REQUEST.len() - 1] {
        let mut connection = Raw::connect(&api).await;
        assert!(connection.send(&REQUEST[..sent]).await);
        on_their_way.push((connection, &REQUEST[sent..]));
    }
    // Connections are accepted in their order: once the last one is answered, those are.
    let mut last = Raw::connect(&api).await;
    assert!(last.send(REQUEST).await);
    assert_eq!(last.answer().await.status, 404);
    service.terminate();
    wait_until("it drains", seconds(5), async || service.has_logged("draining")).await;
    // A round trip later.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for (mut connection, rest) in on_their_way {
        assert!(connection.send(rest).await);
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (404, "close"));
    }
    assert_eq!(service.ended(seconds(15)).await.code(), Some(0));
    world.judge_nothing_placed().await;
}

/// The kernel makes connections, and takes requests in them, before anybody accepts them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_made_while_the_listener_is_closed_is_answered_or_refused() {
    let world = World::new().await;
    let setup = world.setup().set("shutdown.readiness_delay", "50ms");
    for _ in 0..5 {
        let mut service = setup.start().await;
        let address = service.api().trim_start_matches("http://").to_owned();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let address = address.clone();
            callers.spawn(async move {
                let mut answered = 0;
                // Until it is refused.
                while let Ok(mut connection) = TcpStream::connect(&address).await {
                    let mut first = [0];
                    let sent = connection.write_all(REQUEST).await;
                    let read = connection.read_exact(&mut first).await;
                    assert!(sent.is_ok() && read.is_ok(), "after {answered} answers: {sent:?}, {read:?}");
                    answered += 1;
                }
                answered
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        service.terminate();
        assert!(callers.join_all().await.iter().all(|answered| *answered > 0));
        assert_eq!(service.ended(seconds(15)).await.code(), Some(0));
    }
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = World::new().await;
    let mut service = world.setup().set("shutdown.readiness_delay", "1h").start().await;
    service.terminate();
    wait_until("it is stopping", seconds(5), async || service.has_logged("stopping")).await;
    service.terminate();
    assert_eq!(service.ended(seconds(2)).await.code(), Some(4));
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn stopped_without_a_broker_it_ends_with_4_and_the_next_process_sends_everything_once() {
    let mut kafka = Kafka::absent().await;
    let world = World::with_kafka(&kafka).await;
    let mut service = world.setup().set("shutdown.grace", "2s").start().await;
    world.client(&service).load(30, 4).await;
    service.terminate();
    assert_eq!(service.ended(seconds(6)).await.code(), Some(4));
    assert_eq!(world.count("unpublished").await, 30);

    kafka.start_again().await;
    let service = world.setup().start().await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Nobody has seen to a topic yet, and nothing can be sent without.
#[tokio::test]
async fn stopped_before_the_broker_has_answered_once_it_announces_what_it_has_taken() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let world = World::with_kafka(&kafka).await;
    proxy.hold();
    let mut service = world.setup().set("shutdown.grace", "30s").start().await;
    world.client(&service).place_one().await;
    service.terminate();
    wait_until("it is draining", seconds(5), async || service.has_logged("draining")).await;
    proxy.pass();
    assert_eq!(service.ended(seconds(40)).await.code(), Some(0));
    assert_eq!(world.count("unpublished").await, 0);
    world.judge().await;
}

#[tokio::test]
async fn signals_that_are_no_stop_do_not_end_it() {
    let world = World::new().await;
    let service = world.setup().start().await;
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        service.signal(signal);
        world.client(&service).place_one().await;
    }
    world.at_rest(seconds(10)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

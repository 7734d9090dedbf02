//! Hosts that vanish: nothing is answered any more, and no connection is told.

use std::time::Instant;

use futures_util::future::join_all;
use testing::{Kafka, Proxy, wait_until};

use crate::world::{World, seconds};

/// Holds: No caller waits longer than 3 s for a database that has vanished, and reads are answered within seconds
/// of its return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_host_that_vanished_is_back_reads_are_answered_within_seconds_and_ready_tells_the_truth() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    let client = world.client(&service);
    client.load(200, 8).await;
    let url = format!("{}/orders", service.api());
    // More than there are connections for reads, so that each of those is met with a statement under way.
    let read_all = || join_all((0..20).map(|_| async { reqwest::get(&url).await.unwrap().status().as_u16() }));
    assert!(read_all().await.iter().all(|status| *status == 200));
    client
        .load_during(8, async {
            // In the midst of reads.
            let mut rounds = 0;
            while read_all().await.contains(&200) {
                rounds += 1;
                if rounds == 3 {
                    proxy.lose();
                }
            }
            wait_until("it is not ready", seconds(5), async || service.probe("ready").await == Some(503)).await;
            world.history.take_slowest();
            let gone = Instant::now();
            while gone.elapsed() < seconds(8) {
                let begun = Instant::now();
                assert!(read_all().await.iter().all(|status| *status == 503));
                assert!(begun.elapsed() < seconds(3), "reads took {:?}", begun.elapsed());
                assert_eq!(service.probe("live").await, Some(200));
                assert_eq!(service.probe("ready").await, Some(503));
            }
            let slowest = world.history.take_slowest();
            assert!(slowest < seconds(3) + seconds(1) / 10, "an answer took {slowest:?}");
            proxy.pass();
            let back = Instant::now();
            wait_until("it is ready", seconds(5), async || service.probe("ready").await == Some(200)).await;
            wait_until("reads are answered", seconds(5), async || read_all().await.iter().all(|status| *status == 200))
                .await;
            assert!(read_all().await.iter().all(|status| *status == 200), "ready told the truth");
            println!("healed within {:?}", back.elapsed());
        })
        .await;
    client.load(20, 4).await;
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(testing::Checker::duplicates_allowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_broker_that_vanished_is_back_sending_goes_on_within_seconds() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let world = World::with_kafka(&kafka).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client
        .load_during(4, async {
            client.load(200, 4).await;
            proxy.lose();
            tokio::time::sleep(seconds(15)).await;
            proxy.pass();
        })
        .await;
    assert_eq!(world.history.others(), [].into(), "every order is accepted");
    // 5 s, and what they take to be sent and marked on a busy machine; without limits it is a minute.
    world.at_rest(seconds(20)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

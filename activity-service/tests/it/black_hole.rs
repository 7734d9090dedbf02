//! Hosts that vanish: nothing is answered any more, and no connection is told.

use futures_util::future::join_all;
use testing::{Kafka, Proxy, wait_until};

use crate::world::{World, many, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_host_that_vanished_is_back_counting_goes_on_and_reads_are_answered_within_seconds() {
    let world = World::new(3).await;
    let proxy = Proxy::before(world.database.address()).await;
    // Retention is met in the midst of a transaction: it has little else to do.
    let setup = world.setup().set("retention.every", "5ms");
    let service = setup.set("database.url", world.database.url_through(proxy.port())).start().await;
    world.produce(&many(1000)).await;
    world.has_counted(1000, seconds(20)).await;
    let url = format!("{}/activities/today", service.api());
    let read_all = || join_all((0..20).map(|_| async { reqwest::get(&url).await.unwrap().status().as_u16() }));
    let mut rounds = 0;
    while read_all().await.contains(&200) {
        rounds += 1;
        if rounds == 3 {
            world.produce(&many(100)).await;
            proxy.lose();
        }
    }
    wait_until("it is not ready", seconds(5), async || service.probe("ready").await == Some(503)).await;
    for _ in 0..8 {
        assert!(read_all().await.iter().all(|status| *status == 503));
        assert_eq!(service.probe("live").await, Some(200));
    }
    let purged_at = async || service.health().await["components"]["retention"]["lastSuccess"].clone();
    let purged_before = purged_at().await;
    proxy.pass();
    wait_until("it is ready", seconds(5), async || service.probe("ready").await == Some(200)).await;
    wait_until("reads are answered", seconds(5), async || read_all().await.iter().all(|status| *status == 200)).await;
    // An attempt that was under way is given up after 15 s.
    world.has_counted(1100, seconds(20)).await;
    wait_until("retention goes on", seconds(20), async || purged_at().await != purged_before).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_broker_that_vanished_is_back_counting_goes_on_within_seconds() {
    let (kafka, proxy) = Kafka::behind_proxy().await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create(3, &[]).await;
    let service = world.setup().start().await;
    world.produce(&many(1000)).await;
    world.has_counted(1000, seconds(20)).await;
    proxy.lose();
    tokio::time::sleep(seconds(15)).await;
    proxy.pass();
    world.produce(&many(100)).await;
    // Without limits it is a minute.
    world.has_counted(1100, seconds(20)).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

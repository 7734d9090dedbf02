//! Behind HAProxy and nginx, set as docs/proxies.md says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use testing::front::{Front, Product, load_during};

use crate::world::World;

async fn no_read_fails_while_instances_are_restarted(product: Product) {
    let world = World::new(1).await;
    let (front, mut pair) = Front::before(product, &world.setup()).await;
    let (client, url) = (reqwest::Client::new(), format!("{}/activities/today", front.url()));
    let failed = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let read = || {
        let (asked, failed) = (client.get(&url).send(), Arc::clone(&failed));
        async move {
            let status = asked.await.map_or_else(|error| error.to_string(), |answer| answer.status().to_string());
            if status != "200 OK" {
                *failed.lock().unwrap().entry(status).or_default() += 1;
            }
        }
    };
    let sent = load_during(read, pair.restart_in_turn(10)).await;
    assert_eq!(*failed.lock().unwrap(), BTreeMap::new(), "of {sent} requests");
    pair.stop().await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rolling_restarts_at_200_reads_a_second_fail_none_through_haproxy() {
    no_read_fails_while_instances_are_restarted(Product::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rolling_restarts_at_200_reads_a_second_fail_none_through_nginx_without_active_checks() {
    no_read_fails_while_instances_are_restarted(Product::Nginx).await;
}

//! Behind HAProxy and nginx, set as docs/proxies.md says.

use testing::{
    Client,
    front::{Front, Product, load_during},
};

use crate::world::{World, seconds};

async fn no_order_fails_while_instances_are_restarted(product: Product) {
    let world = World::new().await;
    let (front, mut pair) = Front::before(product, &world.setup()).await;
    let client = Client::new(front.url(), &world.history);
    let place = || {
        let client = client.clone();
        async move { drop(client.place().await) }
    };
    let sent = load_during(place, pair.restart_in_turn(10)).await;
    assert_eq!(world.history.others(), [].into(), "of {sent} orders");
    world.at_rest(seconds(30)).await;
    pair.stop().await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rolling_restarts_at_200_orders_a_second_fail_none_through_haproxy() {
    no_order_fails_while_instances_are_restarted(Product::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rolling_restarts_at_200_orders_a_second_fail_none_through_nginx_without_active_checks() {
    no_order_fails_while_instances_are_restarted(Product::Nginx).await;
}

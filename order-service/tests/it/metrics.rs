//! What operators are told while it runs.

use testing::{Kafka, Proxy, documented_of_database, wait_until};

use crate::world::{World, seconds};

/// Holds: No metric of order-service is undocumented, or missing at the start.
#[tokio::test]
async fn every_metric_is_documented_and_there_from_the_start() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let scrape = service.metrics().await;
    scrape.is_as_documented("order-service");
    let nothing_happened =
        |(name, value): &(&String, &f64)| name.contains("_total") && !name.starts_with("process_") && **value != 0.0;
    let began: Vec<_> = scrape.series.iter().filter(nothing_happened).map(|(name, _)| name.as_str()).collect();
    assert_eq!(began, ["outbox_identities_total"]);
    let expected = r#"http_server_request_duration_seconds_count{http_request_method="POST",http_route="/orders",http_response_status_code="503"}"#;
    assert_eq!(scrape.series.get(expected), Some(&0.0));
    world.judge_nothing_placed().await;
}

#[tokio::test]
async fn requests_are_told_by_method_route_and_status_whatever_callers_send() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(5, 1).await;
    client.get("/orders/OS000001-ORD").await;
    client.get("/no/such/canary").await;
    let series = service.metrics().await.series;
    let count = |method: &str, route: &str, status: u16| {
        series[&format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"{method}\",http_route=\"{route}\",http_response_status_code=\"{status}\"}}"
        )]
    };
    assert_eq!(count("POST", "/orders", 201), 5.0);
    assert_eq!(count("GET", "/orders/{orderRef}", 200), 1.0);
    assert_eq!(count("GET", "none", 404), 1.0);
    assert!(!series.keys().any(|name| name.contains("canary") || name.contains("OS000001")));
    assert_eq!(series["http_server_active_requests"], 0.0);
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_broker_is_told_while_it_lasts_and_its_end_even_without_orders() {
    let mut kafka = Kafka::start().await;
    let world = World::with_kafka(&kafka).await;
    let service = world.setup().set("metrics.database_every", "100ms").start().await;
    let client = world.client(&service);
    client.load(100, 4).await;
    world.at_rest(seconds(20)).await;
    let told = async |name: &str| service.metrics().await.sum(name);
    wait_until("all are published", seconds(20), async || told("outbox_published_messages_total").await == 100.0).await;
    assert_eq!(told("outbox_publish_duration_seconds_count").await, 100.0);
    wait_until("none is left", seconds(20), async || told("outbox_unpublished_messages").await == 0.0).await;
    assert_eq!(told("outbox_outage").await, 0.0);

    kafka.stop().await;
    wait_until("the outage is told", seconds(30), async || told("outbox_outage").await == 1.0).await;
    client.load(50, 4).await;
    wait_until("they are told", seconds(20), async || told("outbox_unpublished_messages").await == 50.0).await;
    assert_eq!(told("outbox_queue_length").await, 50.0);
    let age = told("outbox_oldest_unpublished_age_seconds").await;
    wait_until("the oldest grows older", seconds(20), async || {
        told("outbox_oldest_unpublished_age_seconds").await > age + 1.0
    })
    .await;

    kafka.start_again().await;
    world.at_rest(seconds(30)).await;
    wait_until("the end is told", seconds(20), async || {
        told("outbox_outage").await + told("outbox_unpublished_messages").await + told("outbox_queue_length").await
            == 0.0
    })
    .await;
    assert_eq!(told("outbox_oldest_unpublished_age_seconds").await, 0.0);

    kafka.stop().await;
    wait_until("the next outage is told", seconds(30), async || told("outbox_outage").await == 1.0).await;
    kafka.start_again().await;
    wait_until("its end is told", seconds(30), async || told("outbox_outage").await == 0.0).await;
    world.judge().await;
}

#[tokio::test]
async fn numbers_of_the_database_are_told_only_while_it_can_be_asked() {
    let world = World::new().await;
    let proxy = Proxy::before(world.database.address()).await;
    let setup = world.setup().set("database.url", world.database.url_through(proxy.port()));
    let service = setup.set("metrics.database_every", "100ms").start().await;
    let of_database = documented_of_database("order-service");
    let untold = async || {
        let scrape = service.metrics().await;
        scrape.kinds.keys().filter(|name| of_database.contains(*name) && !scrape.has(name)).count()
    };
    wait_until("all are told", seconds(20), async || untold().await == 0).await;
    proxy.refuse();
    wait_until("none is told", seconds(20), async || untold().await == of_database.len()).await;
    assert_eq!(service.metrics().await.sum("database_figures_up"), 0.0);
    proxy.pass();
    wait_until("all are told again", seconds(20), async || untold().await == 0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_placed().await;
}

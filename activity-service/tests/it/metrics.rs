//! What operators are told while it runs.

use testing::{Proxy, documented_of_database, wait_until};

use crate::world::{World, many, seconds};

/// Holds: No metric of activity-service is undocumented, or missing at the start.
#[tokio::test]
async fn every_metric_is_documented_and_there_from_the_start() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    let scrape = service.metrics().await;
    scrape.is_as_documented("activity-service");
    let nothing_happened =
        |(name, value): &(&String, &f64)| name.contains("_total") && !name.starts_with("process_") && **value != 0.0;
    let began: Vec<_> = scrape.series.iter().filter(nothing_happened).map(|(name, _)| name.as_str()).collect();
    assert_eq!(began, [""; 0]);
    world.judge_nothing_counted().await;
}

#[tokio::test]
async fn what_is_counted_known_already_or_kept_is_told() {
    let world = World::new(2).await;
    let setup = world.setup().set("metrics.database_every", "100ms").set("metrics.lag_every", "100ms");
    let service = setup.start().await;
    let told = async |name: &str| service.metrics().await.sum(name);
    let mut messages = many(100);
    messages.extend_from_within(..10);
    for bad in &mut messages[50..53] {
        bad.value = Some(b"no json".to_vec());
    }
    world.produce(&messages).await;
    wait_until("all are told", seconds(30), async || {
        told("activity_counted_messages_total").await == 97.0
            && told("activity_duplicate_messages_total").await == 10.0
            && told("activity_kept_messages_total").await == 3.0
    })
    .await;
    let by_type = r#"activity_counted_activities_total{activity_type_code="ORDER_CREATED"}"#;
    assert_eq!(service.metrics().await.series[by_type], 97.0);
    let by_reason = r#"activity_quarantined_messages{reason="not_json"}"#;
    wait_until("those that wait are told", seconds(20), async || {
        service.metrics().await.series.get(by_reason) == Some(&3.0)
    })
    .await;
    assert_eq!(told("activity_quarantined_messages").await, 3.0);
    assert!(told("activity_count_delay_seconds_count").await >= 1.0);
    assert_eq!(told("activity_assigned_partitions").await, 2.0);
    wait_until("nothing lags behind", seconds(20), async || {
        told("activity_consumer_lag_messages").await + told("activity_consumer_lag_seconds").await == 0.0
    })
    .await;
    world.judge().await;
}

#[tokio::test]
async fn numbers_of_the_database_are_told_only_while_it_can_be_asked() {
    let world = World::new(1).await;
    let proxy = Proxy::before(world.database.address()).await;
    let setup = world.setup().set("database.url", world.database.url_through(proxy.port()));
    let service = setup.set("metrics.database_every", "100ms").start().await;
    let mut of_database = documented_of_database("activity-service");
    // No source has told anything here.
    assert!(of_database.remove("activity_complete_to_age_seconds"));
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
    world.judge_nothing_counted().await;
}

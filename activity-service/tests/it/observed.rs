//! What Prometheus sees of both services while orders come in, messages are bad and Kafka goes away;
//! and what becomes of it: panels with data, alerts that fire and end.

use serde_json::{Value, json};
use testing::{
    Client, Database, History, Kafka, Prometheus, Series, Service, Setup, observability, rules_hold, wait_until,
};

use crate::world::{World, created, figures, seconds};

/// To the rules, whose alerts wait for minutes, a second of the test is half a minute.
const LAPSE: usize = 30;
/// Of the outage: ten minutes to the rules.
const SECONDS: usize = 20;

const OUTAGE: &str = "outbox_outage";
const AGE: &str = "outbox_oldest_unpublished_age_seconds";
const FAILED: &str = "outbox_failed_messages";
const QUARANTINED: &str = r#"activity_quarantined_messages{reason="not_json"}"#;

/// A message of an instance that has ended, larger than the topic takes and not to be compressed.
const TOO_LARGE: &str = "
    INSERT INTO instances (instance_id, ended_at) VALUES (1, now());
    INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
        tracestate)
    SELECT first_reference(now()), 1, 0, 1, 1, 'ORDER_CREATED', now(), 1, string_agg(md5(n::text), '')
    FROM generate_series(1, 10000) n";

/// Holds: No panel and no alert asks for a metric that does not exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_and_bad_messages_show_in_panels_and_alerts() {
    let mut kafka = Kafka::start().await;
    let (world, orders) = (World::with_kafka(&kafka).await, Database::empty().await);
    world.topic().create(6, &[("max.message.bytes", "100000")]).await;
    let (counting, ordering) = start(&world, &orders).await;
    let targets = [("order-service", ordering.management()), ("activity-service", counting.management())];
    let prometheus = Prometheus::start(&targets).await;

    let client = Client::new(ordering.api(), &History::default());
    client
        .load_during(1, async {
            has_seen(&prometheus, "orders_placed_total", |series| last(series) > 100.0).await;
            client.get("/orders").await;
            figures(&counting, "/activities/today").await;
            world.produce(&[created().with_value("bad")]).await;
            orders.execute(TOO_LARGE).await;
            has_seen(&prometheus, FAILED, |series| last(series) >= 1.0).await;
            has_seen(&prometheus, QUARANTINED, |series| last(series) >= 1.0).await;

            kafka.crash().await;
            has_seen(&prometheus, OUTAGE, |series| outage(series).len() > SECONDS).await;
            kafka.start_again().await;
            has_seen(&prometheus, OUTAGE, |series| last(series) < 1.0).await;
        })
        .await;
    has_seen(&prometheus, "outbox_unpublished_messages", |series| last(series) == 0.0).await;
    world.at_rest().await;

    for dashboard in ["order-service", "activity-service"] {
        every_panel_has_data(&prometheus, dashboard).await;
    }
    alerts_fire_and_end(&prometheus).await;
    assert_eq!((ordering.stop().await, counting.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

/// The counting and the ordering service.
async fn start(world: &World, orders: &Database) -> (Service, Service) {
    let setup = Setup::new(testing::binary("order-service"))
        .set("kafka.brokers", &world.topic().brokers)
        .set("kafka.topic", &world.topic().name)
        .set("publisher.max_failures", 2);
    let migrated = setup.clone().set("database.url", orders.owner_url()).run(&["migrate"]).await;
    assert!(migrated.status.success(), "{migrated:?}");
    let (counting, ordering) = (world.setup(), setup.set("database.url", orders.url()));
    tokio::join!(counting.start(), ordering.start())
}

/// Waits until a series is what it should be.
async fn has_seen(prometheus: &Prometheus, query: &str, what: impl Fn(&Series) -> bool) {
    wait_until(query, seconds(60), async || prometheus.history(query).await.iter().any(&what)).await;
}

fn last(series: &Series) -> f64 {
    series.last().map_or(f64::NAN, |(_, value)| *value)
}

/// From when to when the longest outage was.
fn outage(series: &Series) -> std::ops::Range<usize> {
    let runs = series.chunk_by(|one, next| one.1 == next.1).filter(|run| run[0].1 >= 1.0);
    runs.map(|run| run[0].0..run[run.len() - 1].0 + 1).max_by_key(ExactSizeIterator::len).unwrap_or_default()
}

async fn every_panel_has_data(prometheus: &Prometheus, dashboard: &str) {
    let file = observability("dashboards").join(dashboard).with_extension("json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            // As for all namespaces: these series have none.
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "10s").replace("$namespace", ".*");
            let found = prometheus.history(&query).await;
            assert!(found.iter().any(|series| !series.is_empty()), "{}: no data: {query}", panel["title"]);
            asked += 1;
        }
    }
    assert!(asked > 20, "only {asked} queries");
}

/// On the series as they were recorded.
async fn alerts_fire_and_end(prometheus: &Prometheus) {
    let mut recorded = Vec::new();
    for query in [OUTAGE, AGE, FAILED, QUARANTINED] {
        let [series] = &prometheus.history(query).await[..] else { panic!("{query}: one instance, one series") };
        recorded.push(series.clone());
    }
    let [outages, ages, failed, _] = &recorded[..] else { unreachable!("four were asked for") };
    let outage = outage(outages);
    let age = |at: usize| ages.iter().rfind(|(time, _)| *time <= at).expect("an age before it").1;
    let grown = age(outage.end - 1) - age(outage.start);
    assert!(grown > 10.0, "the oldest message grew older by {grown} s only");

    let input = std::iter::zip([OUTAGE, AGE, FAILED, QUARANTINED], &recorded).map(|(query, series)| {
        // A scrape that came too late is a gap.
        let mut values = vec!["_".to_owned(); series[series.len() - 1].0 + 1];
        series.iter().for_each(|(time, value)| values[*time] = value.to_string());
        json!({"series": query, "values": values.join(" ")})
    });
    let fires = |name: &str, at: usize, labels: Value, summary: &str| {
        let runbook = format!("docs/operations.md#{}", name.to_lowercase());
        let expected = json!({"exp_labels": labels, "exp_annotations": {"summary": summary, "runbook_url": runbook}});
        json!({"alertname": name, "eval_time": format!("{}s", at * LAPSE), "exp_alerts": [expected]})
    };
    let silent = |name: &str, at: usize| json!({"alertname": name, "eval_time": format!("{}s", at * LAPSE)});
    let end = failed[failed.len() - 1].0;
    rules_hold(&json!({
        "rule_files": [observability("alerts.yml")],
        "evaluation_interval": format!("{LAPSE}s"),
        "tests": [{
            "interval": format!("{LAPSE}s"),
            "input_series": input.collect::<Vec<_>>(),
            "alert_rule_test": [
                silent("OutboxOutage", outage.start),
                fires("OutboxOutage", outage.end - 1, json!({"severity": "page"}),
                    "no messages are sent, or none for some partition; orders are accepted, and wait to be announced"),
                silent("OutboxMessageLate", outage.end - 1),
                silent("OutboxOutage", outage.end + 1),
                fires("OutboxFailedMessages", end, json!({"severity": "ticket"}),
                    "1 messages are at the failure threshold and are not sent any more"),
                fires("ActivityQuarantined", end, json!({"severity": "ticket", "reason": "not_json"}),
                    "1 messages wait in quarantine: not_json"),
            ],
        }],
    }))
    .await;
}

//! Both services as they are: orders in over HTTP, figures out over HTTP.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Method;
use testing::{Checker, Collector, Received, Setup, Span, order_body, wait_until};
use time::OffsetDateTime;

use crate::{
    shop::Shop,
    world::{figures, seconds},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_go_in_over_http_and_come_out_as_figures() {
    let shop = Shop::new().await;
    let (counting, ordering) = shop.start().await;
    shop.client(&ordering).load(400, 16).await;
    assert_eq!((shop.history.acknowledged().len(), shop.history.others().len()), (400, 0));
    shop.is_counted(&counting, seconds(20)).await;
    let today = figures(&counting, "/activities/today").await;
    assert!(today.len() <= 1 && today.iter().all(|(_, code, _)| code == "ORDER_CREATED"), "{today:?}");
    assert_eq!(shop.by_day().await.values().sum::<i64>(), 400);
    assert_eq!((ordering.stop().await, counting.stop().await), (Some(0), Some(0)));
    shop.judge(|checker| checker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_orders_are_counted_once_each_by_their_own_types() {
    let shop = Shop::new().await;
    let (counting, ordering) = shop.start().await;
    let client = shop.client(&ordering);
    client.load(30, 8).await;
    for (number, order) in shop.history.acknowledged().keys().enumerate() {
        let change = ["complete", "cancel", "complete"][number % 3];
        for _ in 0..2 {
            assert_eq!(client.change(order, change).await.unwrap().status, 200);
        }
    }
    // They may fall on two days.
    let today = OffsetDateTime::now_utc().date();
    let path = format!("/activities?from={}&to={}", today.previous_day().unwrap(), today.next_day().unwrap());
    wait_until("every end is counted", seconds(30), async || {
        let mut sums = BTreeMap::new();
        for (_, code, quantity) in figures(&counting, &path).await {
            *sums.entry(code).or_insert(0) += quantity;
        }
        let expected = [("ORDER_CANCELLED", 10), ("ORDER_COMPLETED", 20), ("ORDER_CREATED", 30)];
        sums.iter().map(|(code, quantity)| (code.as_str(), *quantity)).eq(expected)
    })
    .await;
    assert_eq!((ordering.stop().await, counting.stop().await), (Some(0), Some(0)));
    shop.judge(|checker| checker).await;
}

/// Holds: Orders and figures are equal at rest, whatever was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_each_service_killed_in_the_middle_orders_and_figures_are_still_equal() {
    let shop = Shop::new().await;
    let (mut counting, mut ordering) = shop.start().await;
    for _ in 0..3 {
        let client = shop.client(&ordering);
        client
            .load_during(8, async {
                shop.activity.has_counted(shop.activity.counted().await + 50, seconds(20)).await;
                counting.kill().await;
                client.load(30, 4).await;
                ordering.kill().await;
            })
            .await;
        (counting, ordering) = shop.start().await;
    }
    shop.client(&ordering).load(100, 8).await;
    shop.is_counted(&counting, seconds(30)).await;
    assert!(shop.history.acknowledged().len() > 300, "{:?}", shop.history);
    assert_eq!((ordering.stop().await, counting.stop().await), (Some(0), Some(0)));
    shop.judge(Checker::duplicates_allowed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_shows_the_request_its_placement_the_sending_and_the_counting() {
    let (shop, collector) = (Shop::new().await, Collector::start().await);
    let traced = |setup: Setup| setup.set("traces.otlp_endpoint", collector.endpoint()).set("traces.sampling", 1);
    let (counting, ordering) = (traced(shop.activity.setup()), traced(shop.ordering()));
    let (counting, ordering) = tokio::join!(counting.start(), ordering.start());
    let client = shop.client(&ordering);

    // Begun by the caller, who wants it to be kept.
    let (trace, parent) =
        ("4bf92f3577b34da6a3ce929d0e0e4736", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let long = format!("vendor={}", "x".repeat(600));
    let headers = [("content-type", "application/json"), ("traceparent", parent), ("tracestate", long.as_str())];
    let body = serde_json::to_vec(&order_body("traced")).unwrap();
    let answer = client.ask(Method::POST, "/orders", &headers, body).await.unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    shop.history.add(answer.body["orderRef"].as_str().unwrap(), "traced");
    // Begun here.
    client.place_one().await;

    let names = |spans: &[Span]| {
        let mut names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
        names.sort_unstable();
        names
    };
    let whole = ["POST /orders", "count", "place order", "publish"];
    wait_until("both traces are whole", seconds(60), async || {
        let mut traces = BTreeMap::<_, Vec<_>>::new();
        collector.spans().into_iter().for_each(|span| traces.entry(span.trace_id.clone()).or_default().push(span));
        traces.contains_key(trace) && traces.values().filter(|spans| names(spans) == whole).count() == 2
    })
    .await;

    let sent = shop.activity.topic().dump().await;
    let of = |message: &Received| (message.header("traceparent"), message.header("tracestate"));
    assert!(sent.iter().any(|message| of(message) == (parent.to_owned(), String::new())), "{sent:?}");
    let own = sent.iter().map(|message| message.header("traceparent")).find(|header| header != parent).unwrap();
    let server =
        collector.spans().into_iter().find(|span| span.name == "POST /orders" && span.trace_id != trace).unwrap();
    assert_eq!(own, format!("00-{}-{}-01", server.trace_id, server.span_id));
    assert_eq!((counting.stop().await, ordering.stop().await), (Some(0), Some(0)));
    shop.judge(|checker| checker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_be_complete_is_counted_while_either_service_is_killed() {
    let shop = Shop::new().await;
    let (mut counting, mut ordering) = shop.start().await;
    let client = shop.client(&ordering);
    let (mut told, mut fresh) = (Vec::new(), Vec::new());
    let counted = "SELECT count(*) FROM processed_messages WHERE activity_at <= $1";
    for round in 0..30 {
        client.route_to([ordering.api()]);
        let asking = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let answer = crate::world::client(&counting).get("/completeness").await.body;
                let Some(to) = answer["completeTo"].as_str() else { continue };
                let to = OffsetDateTime::parse(to, &time::format_description::well_known::Rfc3339).unwrap();
                let counted: i64 =
                    sqlx::query_scalar(counted).bind(to).fetch_one(&shop.activity.database.pool).await.unwrap();
                told.push((to, counted));
                fresh.extend(answer["freshnessSeconds"].as_f64());
            }
        };
        client.load_during(2, asking).await;
        if round == 8 {
            counting.kill().await;
            counting = shop.activity.setup().start().await;
        }
        if round == 16 {
            ordering.kill().await;
            ordering = shop.ordering().start().await;
        }
    }
    shop.is_counted(&counting, seconds(20)).await;
    assert!(told.len() > 20, "{}", told.len());
    for (to, counted) in told {
        let written = "SELECT count(*) FROM outbox WHERE activity_at <= $1";
        let written: i64 = sqlx::query_scalar(written).bind(to).fetch_one(&shop.orders.pool).await.unwrap();
        assert!(counted >= written, "{written} were written up to {to}, {counted} of them counted when it was told");
    }
    fresh.sort_by(f64::total_cmp);
    println!("freshness: p50 {} s, p99 {} s", fresh[fresh.len() / 2], fresh[fresh.len() * 99 / 100]);
    let newest: OffsetDateTime =
        sqlx::query_scalar("SELECT max(activity_at) FROM outbox").fetch_one(&shop.orders.pool).await.unwrap();
    wait_until("all of it is complete", seconds(20), async || {
        let answer = crate::world::client(&counting).get("/completeness").await.body;
        let to = answer["completeTo"].as_str().unwrap();
        OffsetDateTime::parse(to, &time::format_description::well_known::Rfc3339).unwrap() >= newest
    })
    .await;
    shop.judge(Checker::duplicates_allowed).await;
}

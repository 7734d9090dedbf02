//! Both services as they are: orders in over HTTP, figures out over HTTP.

use std::{collections::BTreeMap, time::Duration};

use testing::{Checker, Client, Database, History, Service, Setup, wait_until};
use time::OffsetDateTime;

use crate::world::{World, figures, seconds};

struct Shop {
    orders: Database,
    history: History,
    activity: World,
}

impl Shop {
    /// order-service creates the topic.
    async fn new() -> Self {
        let orders = Database::empty().await;
        let migrated = Setup::new(testing::binary("order-service")).set("database.url", orders.owner_url());
        let done = migrated.run(&["migrate"]).await;
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        Self { orders, history: History::default(), activity: World::without_topic().await }
    }

    fn ordering(&self) -> Setup {
        let topic = self.activity.topic();
        Setup::new(testing::binary("order-service"))
            .set("database.url", self.orders.url())
            .set("kafka.brokers", &topic.brokers)
            .set("kafka.topic", &topic.name)
            .set("instance.takeover_after", "1s")
    }

    /// The counting and the ordering service.
    async fn start(&self) -> (Service, Service) {
        let (counting, ordering) = (self.activity.setup(), self.ordering());
        tokio::join!(counting.start(), ordering.start())
    }

    fn client(&self, service: &Service) -> Client {
        Client::new(service.api(), &self.history)
    }

    /// The orders by day, as the shop's own table tells them.
    async fn by_day(&self) -> BTreeMap<String, i64> {
        let by_day = "SELECT (placed_at AT TIME ZONE 'UTC')::date::text, count(*) FROM orders GROUP BY 1";
        let rows: Vec<(String, i64)> = sqlx::query_as(by_day).fetch_all(&self.orders.pool).await.unwrap();
        rows.into_iter().collect()
    }

    /// Waits until the figures over HTTP are those of the orders.
    async fn is_counted(&self, counting: &Service, limit: Duration) {
        let unpublished = "SELECT count(*) FROM outbox WHERE state = 'unpublished'";
        wait_until("every order is announced", limit, async || self.orders.number(unpublished).await == 0).await;
        let expected = self.by_day().await;
        let (first, last) = (expected.keys().next().unwrap(), expected.keys().next_back().unwrap());
        let path = format!("/activities?from={first}&to={last}&activityTypeCode=ORDER_CREATED");
        wait_until("every order is counted", limit, async || {
            let found = figures(counting, &path).await.into_iter().map(|(day, _, quantity)| (day, quantity));
            found.collect::<BTreeMap<_, _>>() == expected
        })
        .await;
    }

    async fn judge(self, allow: impl FnOnce(Checker) -> Checker) {
        allow(Checker::new(&self.orders.pool, self.activity.topic(), &self.history)).judge().await;
        self.activity.judge().await;
    }
}

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

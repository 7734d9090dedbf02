//! Both services, on a database each and one topic.

use std::{collections::BTreeMap, time::Duration};

use testing::{Checker, Client, Database, History, Service, Setup, Topic, UNPUBLISHED, wait_until};
use uuid::Uuid;

use crate::world::{World, figures};

pub struct Shop {
    pub orders: Database,
    pub history: History,
    pub activity: World,
}

/// A database of order-service.
pub async fn database() -> Database {
    let orders = Database::empty().await;
    let migrated = Setup::new(testing::binary("order-service")).set("database.url", orders.owner_url());
    let done = migrated.run(&["migrate"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    orders
}

pub fn ordering(orders: &Database, topic: &Topic) -> Setup {
    Setup::new(testing::binary("order-service"))
        .set("database.url", orders.url())
        .set("kafka.brokers", &topic.brokers)
        .set("kafka.topic", &topic.name)
        .set("kafka.progress_topic", format!("{}.progress", topic.name))
        .set("instance.takeover_after", "1s")
}

impl Shop {
    /// order-service creates the topic.
    pub async fn new() -> Self {
        Self { orders: database().await, history: History::default(), activity: World::without_topic().await }
    }

    pub fn ordering(&self) -> Setup {
        ordering(&self.orders, self.activity.topic())
    }

    /// The counting and the ordering service.
    pub async fn start(&self) -> (Service, Service) {
        let (counting, ordering) = (self.activity.setup(), self.ordering());
        tokio::join!(counting.start(), ordering.start())
    }

    pub fn client(&self, service: &Service) -> Client {
        Client::new(service.api(), &self.history)
    }

    /// The message that tells that an order was placed.
    pub async fn message_of(&self, order: &str) -> Uuid {
        let message = "SELECT message_ref FROM outbox WHERE order_ref(order_id) = $1";
        sqlx::query_scalar(message).bind(order).fetch_one(&self.orders.pool).await.unwrap()
    }

    /// The orders by day, as the shop's own table tells them.
    pub async fn by_day(&self) -> BTreeMap<String, i64> {
        let by_day = "SELECT (placed_at AT TIME ZONE 'UTC')::date::text, count(*) FROM orders GROUP BY 1";
        let rows: Vec<(String, i64)> = sqlx::query_as(by_day).fetch_all(&self.orders.pool).await.unwrap();
        rows.into_iter().collect()
    }

    /// Waits until the figures over HTTP are those of the orders.
    pub async fn is_counted(&self, counting: &Service, limit: Duration) {
        let unpublished = format!("SELECT count(*) FROM {UNPUBLISHED} AS m");
        wait_until("every order is announced", limit, async || self.orders.number(&unpublished).await == 0).await;
        let expected = self.by_day().await;
        let (first, last) = (expected.keys().next().unwrap(), expected.keys().next_back().unwrap());
        let path = format!("/activities?from={first}&to={last}&activityTypeCode=ORDER_CREATED");
        wait_until("every order is counted", limit, async || {
            let found = figures(counting, &path).await.into_iter().map(|(day, _, quantity)| (day, quantity));
            found.collect::<BTreeMap<_, _>>() == expected
        })
        .await;
    }

    pub async fn judge(self, allow: impl FnOnce(Checker) -> Checker) {
        allow(Checker::new(&self.orders.pool, self.activity.topic(), &self.history)).judge().await;
        self.activity.judge().await;
    }
}

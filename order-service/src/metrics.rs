//! What order-service tells of itself, beside what its outbox and both services do; docs/metrics.md explains it.

use futures_util::future::BoxFuture;
use shared::runtime::metrics::{Counter, Gauge, Histogram, Metric, SECONDS, SIZES};
use sqlx::PgConnection;

pub const PLACED: Counter = Counter::new("orders_placed_total", "Orders accepted");
pub const REPLAYED: Counter =
    Counter::new("orders_replayed_total", "Requests answered with the order of an earlier one under their key");
pub const NOT_PLACED: Counter = Counter::new("orders_not_placed_total", "Orders answered with an error, by reason")
    .by("reason", &["unavailable", "key in use", "key of another", "refused"]);
pub const CHANGED: Counter = Counter::new("orders_changed_total", "Orders completed and cancelled")
    .by("activity_type_code", &["ORDER_COMPLETED", "ORDER_CANCELLED"]);
pub const LAST_ORDER: Gauge = Gauge::new(
    "orders_last_number",
    "The number of the newest order, of all instances: grows about as fast as orders are placed",
)
.of_database();
pub const LINE_LENGTH: Gauge = Gauge::new("orders_waiting", "Orders in the line before placement");
pub const LINE_CAPACITY: Gauge = Gauge::new("orders_waiting_capacity", "Orders that fit into the line");
pub const PLACEMENT_BATCH: Histogram =
    Histogram::new("placement_batch_orders", "Orders placed by one statement", SIZES);
pub const PLACEMENT_DURATION: Histogram =
    Histogram::new("placement_duration_seconds", "From taking a batch to its commit", SECONDS);

pub const PURGED_KEYS: Counter =
    Counter::new("orders_purged_keys_total", "Idempotency-Keys removed after the retention");
pub const PURGED_ORDERS: Counter =
    Counter::new("orders_purged_total", "Final orders removed after retention.orders, where it is set");
/// Every metric of this service.
#[must_use]
pub fn all() -> Vec<&'static dyn Metric> {
    [OWN, outbox::metrics::ALL].concat()
}

const OWN: &[&dyn Metric] = &[
    &PLACED,
    &REPLAYED,
    &NOT_PLACED,
    &CHANGED,
    &LAST_ORDER,
    &LINE_LENGTH,
    &LINE_CAPACITY,
    &PLACEMENT_BATCH,
    &PLACEMENT_DURATION,
    &PURGED_KEYS,
    &PURGED_ORDERS,
];

/// The numbers that live in the tables.
pub fn of_database(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async {
        outbox::metrics::of_database(&mut *connection).await?;
        // Of the sequence, not of the table: no reading costs less.
        let last = sqlx::query_scalar!("SELECT pg_sequence_last_value('order_number'::regclass)");
        LAST_ORDER.set_count(last.fetch_one(connection).await?.unwrap_or(0).unsigned_abs());
        Ok(())
    })
}

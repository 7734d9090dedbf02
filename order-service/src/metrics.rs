//! What order-service tells of itself, beside what both services do; docs/metrics.md explains it.

use futures_util::future::BoxFuture;
use shared::metrics::{Counter, Gauge, Histogram, LONG_SECONDS, Metric, SECONDS, SIZES};
use sqlx::PgConnection;

pub const PLACED: Counter = Counter::new("orders_placed_total", "Orders accepted");
pub const REPLAYED: Counter =
    Counter::new("orders_replayed_total", "Requests answered with the order of an earlier one under their key");
pub const NOT_PLACED: Counter = Counter::new("orders_not_placed_total", "Orders answered with an error, by reason")
    .by("reason", &["unavailable", "key in use", "key of another", "refused"]);
pub const CHANGED: Counter = Counter::new("orders_changed_total", "Orders completed and cancelled")
    .by("activity_type_code", &["ORDER_COMPLETED", "ORDER_CANCELLED"]);
pub const LINE_LENGTH: Gauge = Gauge::new("orders_waiting", "Orders in the line before placement");
pub const LINE_CAPACITY: Gauge = Gauge::new("orders_waiting_capacity", "Orders that fit into the line");
pub const PLACEMENT_BATCH: Histogram =
    Histogram::new("placement_batch_orders", "Orders placed by one statement", SIZES);
pub const PLACEMENT_DURATION: Histogram =
    Histogram::new("placement_duration_seconds", "From taking a batch to its commit", SECONDS);

pub const UNPUBLISHED: Gauge =
    Gauge::new("outbox_unpublished_messages", "Messages to be sent, of all instances; 100001 means more than 100000");
pub const OLDEST_UNPUBLISHED: Gauge =
    Gauge::new("outbox_oldest_unpublished_age_seconds", "Age of the oldest message to be sent, of all instances");
pub const UNOWNED: Gauge = Gauge::new(
    "outbox_unowned_messages",
    "Messages to be sent that no living instance has in memory; 100001 means more than 100000",
);
pub const FAILED: Gauge = Gauge::new(
    "outbox_failed_messages",
    "Messages at the failure threshold, waiting for an operator; 100001 means more than 100000",
);
pub const OLDEST_FAILED: Gauge =
    Gauge::new("outbox_oldest_failed_age_seconds", "Age of the oldest message at the failure threshold");
pub const QUEUE_LENGTH: Gauge =
    Gauge::new("outbox_queue_length", "Messages in this instance's memory, from placed or claimed to marked");
pub const QUEUE_CAPACITY: Gauge = Gauge::new("outbox_queue_capacity", "Messages that fit into this instance's memory");
pub const IN_FLIGHT: Gauge = Gauge::new("outbox_in_flight_messages", "Messages with the producer or being marked");
pub const OUTAGE: Gauge = Gauge::new("outbox_outage", "1 while Kafka takes no messages from this instance");

pub const PUBLISHED: Counter = Counter::new("outbox_published_messages_total", "Messages marked as published");
pub const PUBLISH_DURATION: Histogram = Histogram::new(
    "outbox_publish_duration_seconds",
    "From when a message came into memory to the broker's acknowledgement, by how it came",
    LONG_SECONDS,
)
.by("origin", &["placed", "claimed"]);
pub const REJECTED: Counter =
    Counter::new("outbox_rejections_total", "Messages that the broker refused alone, by what becomes of them")
        .by("fate", &["waits", "waits in the table", "failed"]);
pub const RETURNED: Counter = Counter::new(
    "outbox_returned_messages_total",
    "Messages that came back unsent without being counted against, by reason",
)
.by("reason", &["refused in company", "outage", "no offset", "producer failed"]);
pub const OVERFLOWED: Counter =
    Counter::new("outbox_overflowed_messages_total", "Messages placed without room in memory");
pub const CLAIMED: Counter = Counter::new("outbox_claimed_messages_total", "Messages taken into memory from the table");
pub const CLAIMS_IN_DOUBT: Counter =
    Counter::new("outbox_claims_in_doubt_total", "Claims whose answer was lost; each costs the identity");
pub const MARK_DURATION: Histogram =
    Histogram::new("outbox_mark_duration_seconds", "From the first attempt at a mark to its commit", LONG_SECONDS);
pub const TAKEN_OVER: Counter =
    Counter::new("outbox_takeovers_total", "Other instances declared gone by this one, whose messages are claimed");
pub const LOST_TO_OTHERS: Counter =
    Counter::new("outbox_lost_messages_total", "Messages of this instance that another one has taken over");
pub const SESSIONS_LOST: Counter =
    Counter::new("outbox_sessions_lost_total", "Times that the session with the database was lost");
pub const IDENTITIES: Counter = Counter::new("outbox_identities_total", "Identities taken, the first one included");
pub const PURGED: Counter =
    Counter::new("outbox_purged_messages_total", "Published messages removed after the retention");
pub const PURGED_KEYS: Counter =
    Counter::new("orders_purged_keys_total", "Idempotency-Keys removed after the retention");
pub const RETRIED: Counter = Counter::new(
    "outbox_retried_messages_total",
    "Messages that operators let be sent again over the API, after a failure",
);

/// Every metric of this service.
pub const ALL: &[&dyn Metric] = &[
    &PLACED,
    &REPLAYED,
    &NOT_PLACED,
    &CHANGED,
    &LINE_LENGTH,
    &LINE_CAPACITY,
    &PLACEMENT_BATCH,
    &PLACEMENT_DURATION,
    &UNPUBLISHED,
    &OLDEST_UNPUBLISHED,
    &UNOWNED,
    &FAILED,
    &OLDEST_FAILED,
    &QUEUE_LENGTH,
    &QUEUE_CAPACITY,
    &IN_FLIGHT,
    &OUTAGE,
    &PUBLISHED,
    &PUBLISH_DURATION,
    &REJECTED,
    &RETURNED,
    &OVERFLOWED,
    &CLAIMED,
    &CLAIMS_IN_DOUBT,
    &MARK_DURATION,
    &TAKEN_OVER,
    &LOST_TO_OTHERS,
    &SESSIONS_LOST,
    &IDENTITIES,
    &PURGED,
    &PURGED_KEYS,
    &RETRIED,
];

/// The numbers that live in the table, of all instances.
///
/// How much there is to read does not grow with the table: counting ends at 100,001 entries of an
/// index that holds only what is counted, and the oldest of each owner is the first of its entries.
/// Entries of rows marked since the last VACUUM are in the way once, the first reader takes them out.
pub fn of_database(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async {
        let found = sqlx::query!(
            r#"
            WITH owners AS (
                SELECT i.instance_id, i.ended_at IS NOT NULL AS has_ended, oldest.placed_at
                -- A reference begins with the time it was drawn at.
                FROM instances i CROSS JOIN LATERAL (
                    SELECT placed_at FROM outbox o WHERE o.owner = i.instance_id AND o.state = 'unpublished'
                    ORDER BY o.message_ref LIMIT 1
                ) oldest
            )
            SELECT
                (SELECT count(*) FROM (
                    SELECT FROM outbox WHERE state = 'unpublished' LIMIT 100001
                ) AS bounded) AS "unpublished!",
                (SELECT count(*) FROM (
                    SELECT FROM owners w JOIN outbox o ON o.owner = w.instance_id
                    WHERE w.has_ended AND o.state = 'unpublished' LIMIT 100001
                ) AS bounded) AS "unowned!",
                (SELECT count(*) FROM (SELECT FROM outbox WHERE state = 'failed' LIMIT 100001) AS bounded) AS "failed!",
                (SELECT EXTRACT(EPOCH FROM now() - min(placed_at))::double precision FROM owners) AS unpublished_age,
                (SELECT EXTRACT(EPOCH FROM now() - placed_at)::double precision FROM outbox WHERE state = 'failed'
                    ORDER BY message_ref LIMIT 1) AS failed_age
            "#
        )
        .fetch_one(connection)
        .await?;
        UNPUBLISHED.set_count(found.unpublished.unsigned_abs());
        UNOWNED.set_count(found.unowned.unsigned_abs());
        FAILED.set_count(found.failed.unsigned_abs());
        OLDEST_UNPUBLISHED.set(found.unpublished_age.unwrap_or(0.0).max(0.0));
        OLDEST_FAILED.set(found.failed_age.unwrap_or(0.0).max(0.0));
        Ok(())
    })
}

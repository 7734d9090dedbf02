//! What the outbox tells of itself; docs/metrics.md explains it.

use futures_util::future::BoxFuture;
use shared::runtime::metrics::{Counter, Gauge, Histogram, LONG_SECONDS, Metric};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::tables;

pub const UNPUBLISHED: Gauge =
    Gauge::new("outbox_unpublished_messages", "Messages to be sent, of all instances").of_database();
pub const OLDEST_UNPUBLISHED: Gauge =
    Gauge::new("outbox_oldest_unpublished_age_seconds", "Age of the oldest message to be sent, of all instances")
        .of_database();
pub const UNOWNED: Gauge =
    Gauge::new("outbox_unowned_messages", "Messages to be sent in logs that no living instance sends").of_database();
pub const FAILED: Gauge = Gauge::new(
    "outbox_failed_messages",
    "Messages at the failure threshold, waiting for an operator; 100001 means more than 100000",
)
.of_database();
pub const OLDEST_FAILED: Gauge =
    Gauge::new("outbox_oldest_failed_age_seconds", "Age of the oldest message at the failure threshold").of_database();
pub const QUEUE_LENGTH: Gauge =
    Gauge::new("outbox_queue_length", "Messages in this instance's memory, from placed or reloaded to marked");
pub const QUEUE_CAPACITY: Gauge = Gauge::new("outbox_queue_capacity", "Messages that fit into this instance's memory");
pub const IN_FLIGHT: Gauge = Gauge::new("outbox_in_flight_messages", "Messages with the producer or being marked");
pub const OUTAGE: Gauge =
    Gauge::new("outbox_outage", "1 while this instance can send no messages, or none for some partition");
pub const LEADERLESS: Gauge =
    Gauge::new("outbox_partitions_without_leader", "Partitions of the topic without a leader, as this instance knows");
pub const STANDING: Gauge = Gauge::new(
    "outbox_standing_partitions",
    "Partitions that have taken none of the messages in flight to them for 5 seconds",
);
pub const SET_BACK: Counter = Counter::new(
    "outbox_set_back_messages_total",
    "Messages that left memory unsent because their partition takes nothing; read from the table later",
);
pub const PAUSED: Gauge = Gauge::new("outbox_paused", "1 while an operator has paused announcing");

pub const PUBLISHED: Counter = Counter::new("outbox_published_messages_total", "Messages marked as published");
pub const PUBLISH_DURATION: Histogram = Histogram::new(
    "outbox_publish_duration_seconds",
    "From when a message came into memory to the broker's acknowledgement, by how it came",
    LONG_SECONDS,
)
.by("origin", &["placed", "reloaded"]);
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
pub const RELOADED: Counter =
    Counter::new("outbox_reloaded_messages_total", "Messages taken into memory from the table");
pub const MARK_DURATION: Histogram =
    Histogram::new("outbox_mark_duration_seconds", "From the first attempt at a mark to its commit", LONG_SECONDS);
pub const TAKEN_OVER: Counter =
    Counter::new("outbox_takeovers_total", "Other instances declared gone by this one, whose logs are adopted");
pub const ENDED_BY_OTHERS: Counter = Counter::new(
    "outbox_ended_by_others_total",
    "Identities of this instance that another one has declared gone although it lived",
);
pub const SESSIONS_LOST: Counter =
    Counter::new("outbox_sessions_lost_total", "Times that the session with the database was lost");
pub const IDENTITIES: Counter = Counter::new("outbox_identities_total", "Identities taken, the first one included");
pub const DROPPED: Counter = Counter::new(
    "outbox_dropped_partitions_total",
    "Days of messages, or of acknowledgements, dropped after the retention",
);
pub const PARTITIONS_AHEAD: Gauge = Gauge::new(
    "outbox_partitions_ahead",
    "For how many days from now there are partitions of the outbox; without one for today nothing can be marked as published",
)
.of_database();
pub const RETRIED: Counter = Counter::new(
    "outbox_retried_messages_total",
    "Messages that operators let be sent again over the API, after a failure",
);
pub const DISCARDED: Counter =
    Counter::new("outbox_discarded_messages_total", "Failed messages that operators gave up over the API");
pub const ANNOUNCEMENTS: Counter = Counter::new(
    "outbox_announcements_total",
    "Times that this instance told Kafka up to when everything is announced; together about one a second",
);
pub const ANNOUNCED_AGE: Gauge = Gauge::new(
    "outbox_announced_to_age_seconds",
    "How long ago the moment is up to which everything is announced, as any instance told it last",
)
.of_database();

/// Every metric of the outbox.
pub const ALL: &[&dyn Metric] = &[
    &UNPUBLISHED,
    &OLDEST_UNPUBLISHED,
    &UNOWNED,
    &FAILED,
    &OLDEST_FAILED,
    &QUEUE_LENGTH,
    &QUEUE_CAPACITY,
    &IN_FLIGHT,
    &OUTAGE,
    &LEADERLESS,
    &STANDING,
    &SET_BACK,
    &PAUSED,
    &PUBLISHED,
    &PUBLISH_DURATION,
    &REJECTED,
    &RETURNED,
    &OVERFLOWED,
    &RELOADED,
    &MARK_DURATION,
    &TAKEN_OVER,
    &ENDED_BY_OTHERS,
    &SESSIONS_LOST,
    &IDENTITIES,
    &DROPPED,
    &PARTITIONS_AHEAD,
    &RETRIED,
    &DISCARDED,
    &ANNOUNCEMENTS,
    &ANNOUNCED_AGE,
];

/// What is outstanding, of all instances.
#[derive(Clone, Copy, Debug)]
pub struct Outstanding {
    pub unpublished: i64,
    pub unowned: i64,
    pub retrying: i64,
    /// At most 100,001.
    pub failed: i64,
    /// At most 100,001.
    pub discarded: i64,
    pub oldest_unpublished_at: Option<OffsetDateTime>,
    /// In seconds.
    pub unpublished_age: Option<f64>,
    pub failed_age: Option<f64>,
}

/// Asks for it.
///
/// They are sums of a few numbers a log: how far it goes, how far it is settled, and what is acknowledged beyond
/// that. How much there is to read does not grow with the messages.
///
/// # Errors
/// The database's.
pub async fn outstanding(connection: &mut PgConnection) -> Result<Outstanding, sqlx::Error> {
    sqlx::query_as!(
        Outstanding,
        r#"
        WITH logs AS MATERIALIZED (
            SELECT i.instance_id, settled_to(i.instance_id) AS settled_to,
                i.ended_at IS NOT NULL AND NOT EXISTS (
                    SELECT FROM instances a WHERE a.instance_id = i.adopter AND a.ended_at IS NULL) AS is_unowned
            FROM instances i WHERE i.done_at IS NULL
        ), counted AS (
            SELECT l.is_unowned, oldest.activity_at, greatest(0, coalesce(newest.seq, -1) - l.settled_to
                - (SELECT coalesce(sum(cardinality(p.seqs)), 0) FROM published p
                    WHERE p.instance = l.instance_id AND p.block > greatest(l.settled_to, 0) / 4096)
                - (SELECT count(*) FROM published p CROSS JOIN LATERAL UNNEST(p.seqs) AS one (seq)
                    WHERE p.instance = l.instance_id AND p.block = greatest(l.settled_to, 0) / 4096
                        AND p.block * 4096 + one.seq > l.settled_to)
                - (SELECT count(*) FROM rejected_messages r
                    WHERE r.instance = l.instance_id AND r.seq > l.settled_to AND r.state <> 'waiting')
                ) AS unpublished
            FROM logs l
            LEFT JOIN LATERAL (
                SELECT seq FROM outbox m WHERE m.instance = l.instance_id ORDER BY m.instance DESC, m.seq DESC LIMIT 1
            ) newest ON true
            LEFT JOIN LATERAL (
                SELECT m.activity_at FROM outbox m WHERE m.instance = l.instance_id AND m.seq > l.settled_to
                ORDER BY m.instance, m.seq LIMIT 1
            ) oldest ON true
        ), retrying AS (
            SELECT count(*) AS count, min(activity_at) AS activity_at FROM (
                SELECT activity_at FROM rejected_messages WHERE state = 'retrying' ORDER BY message_ref LIMIT 100001
            ) AS bounded
        )
        SELECT
            ((SELECT coalesce(sum(unpublished), 0) FROM counted) + (SELECT count FROM retrying))::bigint AS "unpublished!",
            (SELECT coalesce(sum(unpublished), 0)::bigint FROM counted WHERE is_unowned) AS "unowned!",
            (SELECT count(*) FROM (SELECT FROM rejected_messages WHERE state = 'failed' LIMIT 100001) AS bounded) AS "failed!",
            (SELECT count(*) FROM (
                SELECT FROM rejected_messages WHERE state = 'discarded' LIMIT 100001
            ) AS bounded) AS "discarded!",
            (SELECT count FROM retrying) AS "retrying!",
            least((SELECT min(activity_at) FROM counted WHERE unpublished > 0), (SELECT activity_at FROM retrying))
                AS oldest_unpublished_at,
            EXTRACT(EPOCH FROM now() - least(
                (SELECT min(activity_at) FROM counted WHERE unpublished > 0), (SELECT activity_at FROM retrying)
            ))::double precision AS unpublished_age,
            (SELECT EXTRACT(EPOCH FROM now() - activity_at)::double precision FROM rejected_messages
                WHERE state = 'failed' ORDER BY message_ref LIMIT 1) AS failed_age
        "#
    )
    .fetch_one(connection)
    .await
}

/// The numbers that live in the tables.
pub fn of_database(connection: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async {
        let found = outstanding(&mut *connection).await?;
        let announced = sqlx::query_scalar!(
            r#"SELECT EXTRACT(EPOCH FROM now() - max(announced_to))::double precision AS age FROM announced"#
        );
        ANNOUNCED_AGE.set(announced.fetch_one(&mut *connection).await?.unwrap_or(0.0).max(0.0));
        UNPUBLISHED.set_count(found.unpublished.unsigned_abs());
        UNOWNED.set_count(found.unowned.unsigned_abs());
        FAILED.set_count(found.failed.unsigned_abs());
        OLDEST_UNPUBLISHED.set(found.unpublished_age.unwrap_or(0.0).max(0.0));
        OLDEST_FAILED.set(found.failed_age.unwrap_or(0.0).max(0.0));
        let (now, end) = tables::end_of_partitions(connection).await?;
        PARTITIONS_AHEAD.set((end - now).as_seconds_f64() / 86_400.0);
        Ok(())
    })
}

//! What activity-service tells of itself, beside what both services do; docs/metrics.md explains it.

use std::time::Duration;

use shared::{
    operators::management::exposition,
    runtime::{
        config::Reader,
        metrics::{Counter, Gauge, Histogram, LONG_SECONDS, Metric, SIZES},
    },
};

use crate::{rejection::Reason, statistics::Figures};

#[derive(Clone, Debug)]
pub struct Settings {
    pub shared: exposition::Settings,
    pub lag_every: Duration,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        let a_moment = Duration::from_millis(100);
        Self {
            shared: exposition::Settings::read(settings),
            lag_every: settings.within("metrics.lag_every", a_moment.., "100ms or longer"),
        }
    }
}

pub const REASONS: &[&str] = &{
    let mut names = [""; Reason::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Reason::ALL[index].as_str();
        index += 1;
    }
    names
};

/// Counts what has entered the figures, once that is committed.
pub fn count_activities(counted: &Figures) {
    for ((_, code), quantity) in counted {
        let known = TYPES.iter().find(|known| *known == code);
        ACTIVITIES.add_of(known.copied().unwrap_or("other"), *quantity);
    }
}

pub const PAUSED: Gauge = Gauge::new("activity_paused", "1 while an operator has paused counting");
pub const LAG_MESSAGES: Gauge = Gauge::new(
    "activity_consumer_lag_messages",
    "Messages on the partitions of this instance that are not counted yet; not told while a partition cannot be asked",
);
pub const LAG_UNKNOWN: Gauge =
    Gauge::new("activity_unknown_lag_partitions", "Partitions of this instance that cannot be asked for their end");
pub const BEHIND_OPEN: Gauge = Gauge::new(
    "activity_behind_open_transaction_messages",
    "Offsets behind a transaction of another producer that has been open for 30 s; counted when it ends",
);
pub const UNREAD: Gauge = Gauge::new(
    "activity_unread_seconds",
    "For how long nothing was counted of a partition of this instance where messages wait, the longest",
);
pub const UNREAD_ELSEWHERE: Gauge = Gauge::new(
    "activity_unread_elsewhere_seconds",
    "For how long nothing was counted of a partition that is not this instance's where messages wait, the longest",
);
pub const THROTTLED: Gauge = Gauge::new(
    "activity_kafka_throttle_seconds",
    "The longest that Kafka has made a request wait because of a quota, in the last interval of 5 s",
);
pub const LAG_SECONDS: Gauge = Gauge::new(
    "activity_consumer_lag_seconds",
    "Age of the oldest message that this instance has read and not counted, 0 where there is none",
);
pub const ASSIGNED: Gauge = Gauge::new("activity_assigned_partitions", "Partitions of this instance");
pub const COUNT_DELAY: Histogram = Histogram::new(
    "activity_count_delay_seconds",
    "From when a message was sent to when it is counted: the oldest of each batch, by its timestamp in Kafka",
    LONG_SECONDS,
);
pub const BATCH_SIZE: Histogram = Histogram::new("activity_batch_messages", "Messages of a batch", SIZES);
pub const BATCH_DURATION: Histogram = Histogram::new(
    "activity_batch_duration_seconds",
    "From taking a batch to its commit, outages of the database included",
    LONG_SECONDS,
);

pub const COUNTED: Counter = Counter::new("activity_counted_messages_total", "Messages from Kafka that were counted");
/// Those known from the start have series of their own, and all others one: types are registered by people, and a series
/// lasts for as long as the process.
const TYPES: &[&str] = &["ORDER_CREATED", "ORDER_COMPLETED", "ORDER_CANCELLED", "other"];
pub const ACTIVITIES: Counter = Counter::new(
    "activity_counted_activities_total",
    "Activities that entered the figures, out of quarantine too, by type",
)
.by("activity_type_code", TYPES);
pub const DUPLICATES: Counter =
    Counter::new("activity_duplicate_messages_total", "Messages from Kafka that had been counted before");
pub const KEPT: Counter =
    Counter::new("activity_kept_messages_total", "Messages from Kafka put into quarantine, copies included, by reason")
        .by("reason", REASONS);
pub const QUARANTINED: Gauge = Gauge::new(
    "activity_quarantined_messages",
    "Different messages that wait in quarantine, of all instances, by reason; 10001 means more than 10000",
)
.by("reason", REASONS)
.of_database();
pub const OLDEST_QUARANTINED: Gauge = Gauge::new(
    "activity_oldest_quarantined_age_seconds",
    "How long the message has waited that is longest in quarantine, of all instances",
)
.of_database();
pub const WITHOUT_VALUE: Gauge = Gauge::new(
    "activity_quarantined_without_value_messages",
    "Messages that wait in quarantine by place, hash and reason only, of all instances; 10001 means more than 10000",
)
.of_database();
pub const REPLAYED: Counter =
    Counter::new("activity_replayed_messages_total", "Messages of the quarantine tried again over the API, by outcome")
        .by("outcome", &["counted", "duplicate", "still waiting"]);
pub const ATTEMPTS_FAILED: Counter =
    Counter::new("activity_failed_attempts_total", "Transactions that were rolled back or lost, by reason")
        .by("reason", &["outage", "slow", "conflict", "refused", "defect"]);

pub const OPEN_GAPS: Gauge = Gauge::new(
    "activity_open_gaps",
    "Gaps in what was read that nobody has closed yet, of all instances; 10001 means more than 10000",
)
.of_database();
pub const OPEN_GAP_OFFSETS: Gauge =
    Gauge::new("activity_open_gap_offsets", "Offsets in open gaps, of all instances: at most as many messages")
        .of_database();
pub const CREATED_ANEW: Counter =
    Counter::new("activity_topics_created_anew_total", "Partitions found to be of a topic created anew");
pub const OFFSETS_AHEAD: Counter = Counter::new(
    "activity_offsets_ahead_total",
    "Partitions whose offset in Kafka was ahead of the database when this instance began to read them",
);
pub const PURGED: Counter = Counter::new("activity_purged_rows_total", "Rows removed after their retention, by kind")
    .by("kind", &["keys", "quarantine"]);

pub const PARTITIONS_AHEAD: Gauge = Gauge::new(
    "activity_key_partitions_ahead",
    "For how many days after today there are partitions for keys, of all instances, up to 7",
)
.of_database();
pub const STREAMS: Gauge = Gauge::new("activity_open_streams", "Streams of figures that callers of this instance read");
pub const COMPLETE_AGE: Gauge = Gauge::new(
    "activity_complete_to_age_seconds",
    "How long ago the moment is up to which the figures are complete; absent while that is not known",
)
.of_database();
pub const COMPLETENESS_UNKNOWN: Gauge = Gauge::new(
    "activity_completeness_unknown",
    "1 while it is not known how far the figures are complete: a topic has no source that has told anything, or nothing of a source is counted",
)
.of_database();
pub const SILENT_SOURCES: Gauge =
    Gauge::new("activity_silent_sources", "Sources of activities that were not heard of for a minute or longer")
        .of_database();
pub const DIFFERING_MINUTES: Gauge = Gauge::new(
    "activity_differing_counts",
    "Minutes of which something else was counted than their source wrote, by more than quarantine, gaps and failed messages explain, up to 1001, and figures of days that are not what was counted of their minutes",
).of_database();

pub const ZONE_DIFFERENCES: Gauge = Gauge::new(
    "activity_time_zone_differing_dates",
    "Days from 2000 to 2037 on which the database's rules of the time zone are others than those kept, or the program's",
)
.by("with", &["kept", "program"]);

/// Every metric of this service.
pub const ALL: &[&dyn Metric] = &[
    &LAG_MESSAGES,
    &LAG_SECONDS,
    &LAG_UNKNOWN,
    &BEHIND_OPEN,
    &UNREAD,
    &UNREAD_ELSEWHERE,
    &THROTTLED,
    &ASSIGNED,
    &PAUSED,
    &COUNT_DELAY,
    &BATCH_SIZE,
    &BATCH_DURATION,
    &COUNTED,
    &ACTIVITIES,
    &DUPLICATES,
    &KEPT,
    &QUARANTINED,
    &OLDEST_QUARANTINED,
    &WITHOUT_VALUE,
    &REPLAYED,
    &ATTEMPTS_FAILED,
    &OPEN_GAPS,
    &OPEN_GAP_OFFSETS,
    &CREATED_ANEW,
    &OFFSETS_AHEAD,
    &PURGED,
    &PARTITIONS_AHEAD,
    &STREAMS,
    &COMPLETE_AGE,
    &COMPLETENESS_UNKNOWN,
    &SILENT_SOURCES,
    &DIFFERING_MINUTES,
    &ZONE_DIFFERENCES,
];

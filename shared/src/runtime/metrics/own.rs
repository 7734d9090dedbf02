//! The metrics that both services have.

use super::{Counter, Gauge, Histogram, Metric, SECONDS};

/// Requests to the API port, by method, route and status. The names and labels are those of
/// OpenTelemetry's conventions.
pub const HTTP_DURATION: Histogram = Histogram::new(
    "http_server_request_duration_seconds",
    "From a request's head to its answer, by method, route and status",
    SECONDS,
);
pub const HTTP_ACTIVE: Gauge = Gauge::new("http_server_active_requests", "Requests under way");

pub const CONNECTIONS_ENDED: Counter = Counter::new(
    "http_server_connections_ended_for_room_total",
    "Idle connections of callers that were closed because others wanted one",
);
pub const CONNECTIONS_REFUSED: Counter = Counter::new(
    "http_server_connections_refused_total",
    "Connections of callers that found no room: all had a request under way",
);

/// The pools that both services have.
pub const POOLS: &[&str] = &["work", "requests"];
pub const CONNECTIONS: &str = "db_client_connections";
pub const CONNECTIONS_MAX: Gauge =
    Gauge::new("db_client_connection_max", "The most connections that a pool opens").by(POOL, POOLS);
pub const POOL: &str = "db_client_connection_pool_name";

pub const PANICS: Counter = Counter::new("panics_total", "Panics, of which one in a handler costs its request");

pub const LINES_DROPPED: Counter = Counter::new(
    "log_lines_dropped_total",
    "Lines that did not fit into the buffer before their output, or could not be written",
);
pub const LINES_SUPPRESSED: Counter =
    Counter::new("log_lines_suppressed_total", "Lines that repeated themselves too often to be written");

pub const FIGURES_UP: Gauge =
    Gauge::new("database_figures_up", "1 when the numbers that live in the database could be read at the last attempt");
pub const FIGURES_AGE: Gauge =
    Gauge::new("database_figures_age_seconds", "How old the numbers that live in the database are");

pub const TOPICS_MISSING: Gauge =
    Gauge::new("kafka_topics_missing", "Topics that are not there, or that this service may not use");
/// What is wrong with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicProblem {
    Compacted,
    ShortRetention,
    FewInSync,
    FewReplicas,
    NotReplicated,
    TimestampsRefused,
}

impl TopicProblem {
    pub const ALL: [Self; 6] = [
        Self::Compacted,
        Self::ShortRetention,
        Self::FewInSync,
        Self::FewReplicas,
        Self::NotReplicated,
        Self::TimestampsRefused,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compacted => "compacted",
            Self::ShortRetention => "short retention",
            Self::FewInSync => "few in sync",
            Self::FewReplicas => "few replicas",
            Self::NotReplicated => "not replicated",
            Self::TimestampsRefused => "timestamps refused",
        }
    }
}

const PROBLEMS: &[&str] = &{
    let mut names = [""; TopicProblem::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = TopicProblem::ALL[index].as_str();
        index += 1;
    }
    names
};
pub const TOPIC_PROBLEMS: Gauge =
    Gauge::new("kafka_topic_problems", "Topics whose settings break a promise, by what is wrong")
        .by("problem", PROBLEMS);

pub const TASK_HEARTBEAT_AGE: &str = "task_heartbeat_age_seconds";
pub const TASK_STATE: &str = "task_state";

pub const BUILD: &str = "build_info";

/// Every metric of both services that has no labels of its own, except those of the process.
pub(crate) const ALL: &[&dyn Metric] = &[
    &HTTP_ACTIVE,
    &CONNECTIONS_ENDED,
    &CONNECTIONS_REFUSED,
    &PANICS,
    &LINES_DROPPED,
    &LINES_SUPPRESSED,
    &CONNECTIONS_MAX,
    &FIGURES_UP,
    &FIGURES_AGE,
    &TOPICS_MISSING,
    &TOPIC_PROBLEMS,
];

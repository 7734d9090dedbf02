//! Every setting of the service. `default.toml` has the defaults and their reasons.

use std::{path::Path, time::Duration};

use shared::{
    auth,
    config::{Reader, Shown},
    database, health,
    kafka::{self, topics::Expected},
    lifecycle, management,
    metrics::exposition,
    pages, telemetry,
};

use crate::instance::session;

const DEFAULTS: &str = include_str!("../default.toml");
const ENVIRONMENT: &str = "ORDER_SERVICE";

#[derive(Clone, Debug)]
pub struct Config {
    pub database: database::Settings,
    pub auth: auth::Settings,
    pub http: shared::http::Settings,
    pub pages: pages::Settings,
    pub management: management::Settings,
    pub kafka: kafka::Settings,
    pub topic: Topic,
    pub placement: Placement,
    pub changes: Changes,
    pub publisher: Publisher,
    pub reload: Reload,
    pub partitions: Partitions,
    pub session: session::Settings,
    pub retention: Retention,
    /// `health.task_hung_after`
    pub task_hung_after: Duration,
    pub metrics: exposition::Settings,
    pub telemetry: telemetry::Settings,
    pub shutdown: lifecycle::Timing,
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// Where it is told up to when everything is announced.
    pub progress: String,
    pub partitions: i32,
    pub replication: i32,
    pub min_insync_replicas: i32,
    pub expected: Expected,
}

impl Topic {
    fn read(s: &mut Reader) -> Self {
        let replication = s.within("kafka.replication", 1..=100, "from 1 to 100");
        let is_possible = |wanted: &i32| {
            if (1..=replication).contains(wanted) {
                Ok(())
            } else {
                Err("must be from 1 to kafka.replication".to_owned())
            }
        };
        let given = s.optional("kafka.min_insync_replicas", is_possible);
        let min_insync_replicas = given.unwrap_or((replication - 1).max(1));
        Self {
            name: s.checked("kafka.topic", |name: &String| kafka::is_topic(name)),
            progress: s.checked("kafka.progress_topic", |name: &String| kafka::is_topic(name)),
            partitions: s.within("kafka.partitions", 1..=10_000, "from 1 to 10000"),
            replication,
            min_insync_replicas,
            expected: Expected { min_insync_replicas: Some(min_insync_replicas), ..Expected::read(s) },
        }
    }
}

/// A topic where this service creates it.
#[derive(Clone, Debug)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    pub replication: i32,
}

impl Topic {
    #[must_use]
    pub fn of_messages(&self) -> NewTopic {
        NewTopic { name: self.name.clone(), partitions: self.partitions, replication: self.replication }
    }

    /// What a topic is made with, beside `more`.
    #[must_use]
    pub fn properties(&self, more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let in_sync = ("min.insync.replicas", self.min_insync_replicas.to_string());
        more.iter().map(|(name, value)| (*name, (*value).to_owned())).chain([in_sync]).collect()
    }

    /// One partition: what is told later is read later.
    #[must_use]
    pub fn of_progress(&self) -> NewTopic {
        NewTopic { name: self.progress.clone(), partitions: 1, replication: self.replication }
    }
}

#[derive(Clone, Debug)]
pub struct Placement {
    pub tasks: u32,
    pub batch_max_orders: u32,
    pub batch_max_wait: Duration,
    pub waiting_line: u32,
}

#[derive(Clone, Debug)]
pub struct Changes {
    pub tasks: u32,
    pub waiting_line: u32,
}

#[derive(Clone, Debug)]
pub struct Publisher {
    pub queue_capacity: u32,
    pub linger: Duration,
    pub batch_max_messages: u32,
    pub max_in_flight: u32,
    pub max_failures: u32,
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
    pub outage_backoff_max: Duration,
}

#[derive(Clone, Debug)]
pub struct Reload {
    pub page_size: u32,
    /// A second; more often where others would otherwise be waited for longer than for their end.
    pub look_every: Duration,
}

#[derive(Clone, Debug)]
pub struct Partitions {
    pub days_ahead: u32,
    pub every: Duration,
}

#[derive(Clone, Debug)]
pub struct Retention {
    pub published_messages: Duration,
    pub idempotency_keys: Duration,
    /// None: they stay for ever.
    pub orders: Option<Duration>,
    pub every: Duration,
    pub batch_size: u32,
    pub pause: Duration,
}

impl Config {
    /// The settings, and the same as TOML for people.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub fn load(file: Option<&Path>) -> Result<(Self, Shown), Vec<String>> {
        Self::load_for(&[], file)
    }

    /// As [`Config::load`], for a command that uses these groups of settings only.
    ///
    /// # Errors
    /// Every mistake in them, a line each.
    pub fn load_for(groups: &'static [&'static str], file: Option<&Path>) -> Result<(Self, Shown), Vec<String>> {
        let mut settings = Reader::new(DEFAULTS, ENVIRONMENT, file)?.needing(groups);
        let config = Self::read(&mut settings);
        Ok((config, settings.finish()?))
    }

    fn read(s: &mut Reader) -> Self {
        const A_MOMENT: Duration = Duration::from_millis(1);
        const A_SECOND: Duration = Duration::from_secs(1);
        const AN_HOUR: Duration = Duration::from_hours(1);
        let database = database::Settings::read(s);
        let of_session = database::Address::optional(s, "database.session_url");
        let of_session = of_session.unwrap_or_else(|| database.address.clone());
        let auth = auth::Settings::read(s);
        let topic = Topic::read(s);
        let pages = pages::Settings::read(s);
        let mut config = Self {
            session: session::Settings {
                is_as_pool: of_session == database.address,
                address: of_session,
                takeover_after: s.within("instance.takeover_after", Duration::from_millis(500).., "500ms or longer"),
            },
            database,
            management: management::Settings::read(s, &auth),
            auth,
            http: shared::http::Settings::read(s, &pages),
            pages,
            kafka: kafka::Settings::read(s),
            topic,
            placement: Placement {
                tasks: s.within("placement.tasks", 1..=64, "from 1 to 64"),
                batch_max_orders: s.within("placement.batch_max_orders", 1..=1000, "from 1 to 1000"),
                batch_max_wait: s.within("placement.batch_max_wait", ..=A_SECOND, "1s or shorter"),
                waiting_line: s.within("placement.waiting_line", 1..=1_000_000, "from 1 to 1000000"),
            },
            changes: Changes {
                tasks: s.within("changes.tasks", 1..=64, "from 1 to 64"),
                waiting_line: s.within("changes.waiting_line", 1..=1_000_000, "from 1 to 1000000"),
            },
            publisher: Publisher {
                queue_capacity: s.within("publisher.queue_capacity", 1..=1_000_000, "from 1 to 1000000"),
                linger: s.get("publisher.linger"),
                batch_max_messages: s.within("publisher.batch_max_messages", 1..=100_000, "from 1 to 100000"),
                max_in_flight: s.within("publisher.max_in_flight", 1..=1_000_000, "from 1 to 1000000"),
                max_failures: s.within("publisher.max_failures", 1..=1_000_000, "from 1 to 1000000"),
                backoff_initial: s.within("publisher.backoff_initial", A_MOMENT.., "1ms or longer"),
                backoff_max: s.within("publisher.backoff_max", A_MOMENT.., "1ms or longer"),
                outage_backoff_max: s.within("publisher.outage_backoff_max", A_MOMENT.., "1ms or longer"),
            },
            reload: Reload {
                page_size: s.within("reload.page_size", 1..=100_000, "from 1 to 100000"),
                look_every: Duration::from_secs(1),
            },
            partitions: Partitions {
                days_ahead: s.within("partitions.days_ahead", 4..=60, "from 4 to 60"),
                every: s.within("partitions.every", A_MOMENT.., "1ms or longer"),
            },
            retention: Retention {
                published_messages: s.get("retention.published_messages"),
                idempotency_keys: s.within("retention.idempotency_keys", AN_HOUR.., "1h or longer"),
                orders: s.optional("retention.orders", |_| Ok(())),
                every: s.within("retention.every", A_MOMENT.., "1ms or longer"),
                batch_size: s.within("retention.batch_size", 1..=100_000, "from 1 to 100000"),
                pause: s.get("retention.pause"),
            },
            task_hung_after: health::task_hung_after(s),
            metrics: exposition::Settings::read(s),
            telemetry: telemetry::Settings::read(s),
            shutdown: lifecycle::Timing::read(s),
        };
        config.reload.look_every = (config.session.takeover_after / 5).min(config.reload.look_every);
        // Whoever repeats a request finds its order. A day: the database lets none leave earlier.
        let shortest = config.retention.idempotency_keys.max(Duration::from_hours(24));
        if config.retention.orders.is_some_and(|orders| orders < shortest) {
            s.mistake("retention.orders", "must be 1d or longer, and no shorter than retention.idempotency_keys");
        }
        if config.topic.progress == config.topic.name {
            s.mistake("kafka.progress_topic", "must be another topic than kafka.topic, which carries activities only");
        }
        if config.publisher.backoff_initial > config.publisher.backoff_max {
            s.mistake("publisher.backoff_initial", "must not be longer than the maximum of the back-off");
        }
        config
    }
}

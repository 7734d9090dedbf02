//! The settings of the outbox, of whichever service it is. `../default.toml` has the defaults and their reasons.

use std::time::Duration;

use shared::runtime::{
    config::Reader,
    database,
    kafka::{self, topics::Expected},
};

use crate::{
    instance::session,
    message::{Format, Service},
};

/// The defaults, for a service to put before its own.
pub const DEFAULTS: &str = include_str!("../default.toml");

#[derive(Clone, Debug)]
pub struct Settings {
    pub service: Service,
    pub kafka: kafka::Settings,
    pub topic: Topic,
    pub publisher: PublisherSettings,
    pub reload: ReloadSettings,
    pub partitions: PartitionsSettings,
    pub session: session::Settings,
    pub retention: RetentionSettings,
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
            expected: Expected {
                min_insync_replicas: Some(min_insync_replicas),
                replication: Some(replication),
                ..Expected::read(s)
            },
        }
    }
}

/// A topic where the service creates it.
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
pub struct PublisherSettings {
    pub queue_capacity: u32,
    pub linger: Duration,
    /// Whether a thing's messages reach the topic in the order of its versions, whatever fails.
    pub is_strict: bool,
    pub batch_max_messages: u32,
    pub max_in_flight: u32,
    pub max_failures: u32,
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
    pub outage_backoff_max: Duration,
}

#[derive(Clone, Debug)]
pub struct ReloadSettings {
    pub page_size: u32,
    /// A second; more often where others would otherwise be waited for longer than for their end.
    pub look_every: Duration,
}

#[derive(Clone, Debug)]
pub struct PartitionsSettings {
    pub days_ahead: u32,
    pub every: Duration,
}

#[derive(Clone, Debug)]
pub struct RetentionSettings {
    pub published_messages: Duration,
    pub every: Duration,
    pub batch_size: u32,
    pub pause: Duration,
}

impl Settings {
    /// Reads them; the pool of `database` is where the work on the outbox is done.
    pub fn read(s: &mut Reader, service: Service, database: &database::Settings) -> Self {
        const A_MOMENT: Duration = Duration::from_millis(1);
        const TEN_MINUTES: Duration = Duration::from_mins(10);
        const AN_HOUR: Duration = Duration::from_hours(1);
        const A_DAY: Duration = Duration::from_hours(24);
        const A_CENTURY: Duration = Duration::from_hours(100 * 365 * 24);
        let of_session = database::Address::optional(s, "database.session_url");
        let of_session = of_session.unwrap_or_else(|| database.address.clone());
        let session = session::Settings {
            application: format!("{} session", service.name),
            is_as_pool: of_session == database.address,
            address: of_session,
            takeover_after: s.within(
                "instance.takeover_after",
                Duration::from_millis(500)..=TEN_MINUTES,
                "from 500ms to 10m",
            ),
        };
        let settings = Self {
            service,
            kafka: kafka::Settings::read(s),
            topic: Topic::read(s),
            publisher: PublisherSettings {
                queue_capacity: s.within("publisher.queue_capacity", 1..=1_000_000, "from 1 to 1000000"),
                linger: s.within(
                    "publisher.linger",
                    ..=Duration::from_mins(1),
                    "at most 1m: nobody waits longer for an order to be announced",
                ),
                is_strict: s.checked("publisher.order", |order: &String| match (order.as_str(), service.format) {
                    ("loose", _) | ("strict", Format::Things { .. }) => Ok(()),
                    ("strict", Format::Given) => Err("must be loose: messages of this service have no versions".into()),
                    _ => Err("must be loose or strict".into()),
                }) == "strict",
                batch_max_messages: s.within("publisher.batch_max_messages", 1..=100_000, "from 1 to 100000"),
                max_in_flight: s.within("publisher.max_in_flight", 1..=1_000_000, "from 1 to 1000000"),
                max_failures: s.within("publisher.max_failures", 1..=1_000_000, "from 1 to 1000000"),
                backoff_initial: s.within("publisher.backoff_initial", A_MOMENT.., "1ms or longer"),
                backoff_max: s.within("publisher.backoff_max", A_MOMENT.., "1ms or longer"),
                // 5 s are promised in all, and a connection is made again after one.
                outage_backoff_max: s.within(
                    "publisher.outage_backoff_max",
                    A_MOMENT..=Duration::from_secs(3),
                    "from 1ms to 3s: sending resumes within 5s of an outage",
                ),
            },
            reload: ReloadSettings {
                page_size: s.within("reload.page_size", 1..=100_000, "from 1 to 100000"),
                look_every: (session.takeover_after / 5).min(Duration::from_secs(1)),
            },
            partitions: PartitionsSettings {
                days_ahead: s.within("partitions.days_ahead", 4..=60, "from 4 to 60"),
                every: s.within("partitions.every", A_MOMENT..=AN_HOUR, "from 1ms to 1h"),
            },
            session,
            retention: RetentionSettings {
                published_messages: s.within(
                    "retention.published_messages",
                    A_DAY..=A_CENTURY,
                    "from 1d to 36500d: for a day a placement of unknown outcome may be repeated",
                ),
                every: s.within("retention.every", A_MOMENT.., "1ms or longer"),
                batch_size: s.within("retention.batch_size", 1..=100_000, "from 1 to 100000"),
                pause: s.get("retention.pause"),
            },
        };
        if settings.topic.progress == settings.topic.name {
            s.mistake("kafka.progress_topic", "must be another topic than kafka.topic, which carries activities only");
        }
        if settings.publisher.backoff_initial > settings.publisher.backoff_max {
            s.mistake("publisher.backoff_initial", "must not be longer than the maximum of the back-off");
        }
        settings
    }
}

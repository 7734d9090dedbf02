//! Every setting of the service, read and checked before anything starts.

use std::{path::Path, time::Duration};

use shared::{
    operators::management,
    runtime::{
        config::{Reader, Shown},
        database, health,
        kafka::{self, topics::Expected},
        lifecycle::Timing,
        telemetry,
    },
    web::{auth, pages},
};

use crate::{calendar, consumer, metrics, quarantine::room, retention};

const DEFAULTS: &str = include_str!("../default.toml");

#[derive(Clone, Debug)]
pub struct Config {
    /// `database.url`, `database.max_connections`
    pub database: database::Settings,
    /// `auth.*`: who may call
    pub auth: auth::Settings,
    /// `http.*`: the API
    pub http: shared::web::http::Settings,
    /// `http.max_streams`: streams of figures at the same time
    pub max_streams: u32,
    /// `pages.*`: what browsers show
    pub pages: pages::Settings,
    /// `management.*`: health, never to be exposed outside the cluster
    pub management: management::Settings,
    /// `kafka.brokers`, `kafka.properties.*`
    pub kafka: kafka::Settings,
    /// `kafka.longest_outage`, `kafka.allow_compacted`
    pub expected: Expected,
    /// `kafka.topics`, `kafka.progress_topic`, `kafka.group_id`, `consumer.*`
    pub consumer: consumer::Settings,
    /// `quarantine.max_rows`, `quarantine.max_megabytes`
    pub quarantine: room::Limits,
    /// `retention.*`
    pub retention: retention::Settings,
    /// `statistics.time_zone`: the IANA name of the zone whose midnight ends a day
    pub time_zone: String,
    /// `health.task_hung_after`
    pub task_hung_after: Duration,
    /// `metrics.*`
    pub metrics: metrics::Settings,
    /// `log.*`, `traces.*`
    pub telemetry: telemetry::Settings,
    /// `shutdown.readiness_delay`, `shutdown.grace`
    pub shutdown: Timing,
}

impl Config {
    /// The settings, and the same as TOML for people.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub fn load(file: Option<&Path>) -> Result<(Self, Shown), Vec<String>> {
        Self::load_for(&[], file)
    }

    /// As [`Config::load`], for a command that uses these settings, or groups of them, only.
    ///
    /// # Errors
    /// Every mistake in them, a line each.
    pub fn load_for(groups: &'static [&'static str], file: Option<&Path>) -> Result<(Self, Shown), Vec<String>> {
        let mut reader = Reader::new(DEFAULTS, "ACTIVITY_SERVICE", file)?.needing(groups);
        let auth = auth::Settings::read(&mut reader);
        let pages = pages::Settings::read(&mut reader);
        let config = Self {
            database: database::Settings::read(&mut reader),
            management: management::Settings::read(&mut reader, &auth),
            auth,
            http: shared::web::http::Settings::read(&mut reader, pages.peer_origin()),
            max_streams: reader.within("http.max_streams", 0..=10_000, "from 0 to 10000"),
            pages,
            kafka: kafka::Settings::read(&mut reader),
            expected: Expected::read(&mut reader),
            consumer: consumer::Settings::read(&mut reader),
            quarantine: room::Limits::read(&mut reader),
            retention: retention::Settings::read(&mut reader),
            time_zone: reader.checked("statistics.time_zone", calendar::check_name),
            task_hung_after: health::task_hung_after(&mut reader),
            metrics: metrics::Settings::read(&mut reader),
            telemetry: telemetry::Settings::read(&mut reader),
            shutdown: Timing::read(&mut reader),
        };
        if config.consumer.topics.contains(&config.consumer.progress_topic) {
            reader.mistake("kafka.progress_topic", "must be none of kafka.topics, which carry activities only");
        }
        kafka::check(&mut reader, config.consumer.clients(&config.kafka));
        reader.finish().map(|effective| (config, effective))
    }
}

//! How either service reaches Kafka.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::config::Reader;

/// How long a question to the cluster (metadata, offsets, a new topic) may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Settings {
    brokers: Vec<String>,
    properties: BTreeMap<String, String>,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        Self { brokers: settings.get("kafka.brokers"), properties: settings.properties("kafka.properties") }
    }

    /// What every client has in common, then `own`, then the operator's properties: they win.
    #[must_use]
    pub fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(","));
        // An unreachable broker is tried again soon enough to send within 5 s of its return.
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("topic.metadata.refresh.interval.ms", "10000");
        config.set("allow.auto.create.topics", "false");
        for (name, value) in own {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set_log_level(RDKafkaLogLevel::Error);
        config
    }
}

/// Keeps librdkafka's chatter about a broker that is away out of the log: the task that is
/// hindered by it says so once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(error = %error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// The code of an error that has one.
#[must_use]
pub fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)
}

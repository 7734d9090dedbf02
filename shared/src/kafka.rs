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

/// Properties of librdkafka on which promises rest, each with what would break.
const OWN: [(&str, &str); 24] = [
    ("bootstrap.servers", "kafka.brokers is the setting for that"),
    ("metadata.broker.list", "kafka.brokers is the setting for that"),
    ("group.id", "kafka.group_id is the setting for that"),
    ("enable.idempotence", "without it an outage doubles messages"),
    ("acks", "a message counts as sent when all replicas in sync have it"),
    ("request.required.acks", "a message counts as sent when all replicas in sync have it"),
    ("message.timeout.ms", "a message that times out may have been sent all the same"),
    ("delivery.timeout.ms", "a message that times out may have been sent all the same"),
    ("retries", "an outage is waited out, however long it is"),
    ("message.send.max.retries", "an outage is waited out, however long it is"),
    ("transactional.id", "messages are sent without transactions"),
    ("batch.num.messages", "a message that is sent alone must be alone"),
    ("linger.ms", "publisher.linger is the setting for that"),
    ("queue.buffering.max.ms", "publisher.linger is the setting for that"),
    ("queue.buffering.max.messages", "publisher.max_in_flight is the setting for that"),
    ("queue.buffering.max.kbytes", "publisher.max_in_flight bounds what is in flight"),
    ("statistics.interval.ms", "the end of an outage is seen by the statistics"),
    ("allow.auto.create.topics", "a topic made by its name alone has the cluster's settings, not those it needs"),
    ("enable.auto.commit", "offsets follow the database, never the reading"),
    ("enable.auto.offset.store", "offsets follow the database, never the reading"),
    ("auto.offset.reset", "a group without offsets begins at the beginning, or messages are skipped"),
    ("partition.assignment.strategy", "all instances have to agree on it"),
    ("group.instance.id", "several instances would have the same"),
    ("group.protocol", "the consumer's other settings are those of the classic protocol"),
];

#[derive(Clone, Debug)]
pub struct Settings {
    brokers: Vec<String>,
    properties: BTreeMap<String, String>,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        let properties = settings.properties("kafka.properties");
        for (name, value) in &properties {
            if let Some((_, why)) = OWN.iter().find(|(own, _)| own == name) {
                settings.mistake(&format!("kafka.properties.{name}"), format!("cannot be set: {why}"));
            } else if name == "isolation.level" && value != "read_committed" {
                settings.mistake(
                    "kafka.properties.isolation.level",
                    "must be read_committed: messages of a transaction that was aborted would be counted",
                );
            }
        }
        Self { brokers: settings.get("kafka.brokers"), properties }
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

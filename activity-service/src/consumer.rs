//! From Kafka into the figures: reading collects batches, counting takes them to the database.
//!
//! Two tasks with a channel between them. Reading is the only owner of the Kafka client and never
//! waits for the database, so the group keeps this member through any outage. Offsets go the other
//! way, through [`group::Group`]: counting notes what is committed in Postgres, reading tells Kafka.

pub mod batch;
pub mod continuity;
pub mod counting;
pub mod elsewhere;
pub mod fetched;
pub mod group;
mod kept;
pub mod lag;
mod large;
pub mod positions;
pub mod reading;
pub mod watermarks;

use std::time::Duration;

use rdkafka::{ClientConfig, types::RDKafkaType};
use shared::runtime::{config::Reader, kafka};

#[derive(Clone, Debug)]
pub struct Settings {
    pub topics: Vec<String>,
    /// Where sources tell of their progress.
    pub progress_topic: String,
    pub group_id: String,
    pub batch_max_messages: u32,
    pub batch_max_wait: Duration,
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        let backoff_initial = settings.within(
            "consumer.backoff_initial",
            Duration::from_millis(1)..=Duration::from_secs(60),
            "from 1ms to 60s",
        );
        Self {
            topics: settings.checked("kafka.topics", |names: &Vec<String>| kafka::are_topics(names)),
            progress_topic: settings.checked("kafka.progress_topic", |name: &String| kafka::is_topic(name)),
            group_id: settings.get("kafka.group_id"),
            // One statement cannot carry any number: the time limit of a statement is 10 s.
            batch_max_messages: settings.within("consumer.batch_max_messages", 1..=50_000, "from 1 to 50000"),
            batch_max_wait: settings.within("consumer.batch_max_wait", ..=Duration::from_secs(60), "at most 60s"),
            backoff_initial,
            backoff_max: settings.within(
                "consumer.backoff_max",
                backoff_initial..=Duration::from_secs(300),
                "from backoff_initial to 5m",
            ),
        }
    }

    /// The clients that are made with them, for [`kafka::check`].
    #[must_use]
    pub fn clients(&self, kafka: &kafka::Settings) -> [(RDKafkaType, ClientConfig); 3] {
        [
            (RDKafkaType::RD_KAFKA_CONSUMER, reading::client(kafka, self)),
            (RDKafkaType::RD_KAFKA_CONSUMER, watermarks::config_of_records(kafka, &self.group_id)),
            // Which asks about the topics.
            (RDKafkaType::RD_KAFKA_PRODUCER, kafka.client(&[])),
        ]
    }
}

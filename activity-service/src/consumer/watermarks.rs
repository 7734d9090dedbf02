//! What the broker knows of a partition: which messages it has, from the low watermark on up to the
//! high one, and up to where the group has told that it is done.

use std::collections::BTreeMap;

use anyhow::Context;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};
use shared::kafka::{self, Quiet};
use tokio::sync::oneshot;

use super::group::Partition;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that can still be read.
    pub low: i64,
    /// The offset that the next message will have.
    pub high: i64,
}

/// Asks the brokers, each time anew.
#[derive(Clone)]
pub struct Broker(ClientConfig);

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    #[must_use]
    pub fn new(settings: &kafka::Settings, group_id: &str) -> Self {
        // It asks about the group and never joins it.
        Self(settings.client(&[("group.id", group_id), ("enable.auto.commit", "false")]))
    }

    /// The watermarks of `partitions`; those that the broker does not know are left out.
    ///
    /// # Errors
    /// No broker answers, or not with a certain answer.
    pub async fn watermarks(&self, partitions: Vec<Partition>) -> anyhow::Result<BTreeMap<Partition, Watermarks>> {
        self.ask(move |consumer| watermarks(consumer, partitions)).await
    }

    /// The offsets that the group has committed of `partitions`.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn committed(&self, partitions: Vec<Partition>) -> anyhow::Result<BTreeMap<Partition, i64>> {
        self.ask(move |consumer| committed(consumer, &partitions)).await
    }

    /// The questions block: a thread of its own, because an exit would wait for one of the runtime's.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Quiet>) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (answer, answered) = oneshot::channel();
        let config = self.0.clone();
        std::thread::spawn(move || {
            let consumer = BaseConsumer::from_config_and_context(&config, Quiet).context("kafka.properties");
            let found = consumer.as_ref().map_err(|error| anyhow::anyhow!("{error:#}")).and_then(question);
            // An error says that nobody waits any more.
            let (Ok(()) | Err(_)) = answer.send(found);
        });
        answered.await.context("the question to the broker broke off")?
    }
}

fn watermarks(
    consumer: &BaseConsumer<Quiet>,
    partitions: Vec<Partition>,
) -> anyhow::Result<BTreeMap<Partition, Watermarks>> {
    let mut found = BTreeMap::new();
    for (topic, partition) in partitions {
        match consumer.fetch_watermarks(&topic, partition, kafka::ANSWER_WITHIN) {
            Ok((low, high)) => drop(found.insert((topic, partition), Watermarks { low, high })),
            Err(error) => match kafka::code(&error) {
                RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition => {}
                // The rest would take as long to fail.
                _ => return Err(error).context("the watermarks cannot be had"),
            },
        }
    }
    Ok(found)
}

fn committed(consumer: &BaseConsumer<Quiet>, partitions: &[Partition]) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        asked.add_partition(topic, *partition);
    }
    let found = consumer.committed_offsets(asked, kafka::ANSWER_WITHIN).context("the offsets cannot be had")?;
    let known = found.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(next) => Some(((element.topic().to_owned(), element.partition()), next)),
        _ => None,
    });
    Ok(known.collect())
}

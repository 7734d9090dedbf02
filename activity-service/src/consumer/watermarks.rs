//! What the broker knows of a partition: which messages it has, from the low watermark on up to the
//! high one, up to where the group has told that it is done, and which record stands at an offset.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Context;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    message::Message,
};
use shared::kafka::{self, Quiet};
use tokio::sync::oneshot;

use super::{
    group::Partition,
    reading::SESSION,
    record::{self, Digest},
};

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
        // It asks about the group and never joins it. The session is the reading client's, so that whatever
        // settings fit that one fit these.
        let session = SESSION.as_millis().to_string();
        let own = [("group.id", group_id), ("enable.auto.commit", "false"), ("session.timeout.ms", &session)];
        Self(settings.client(&own))
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

    /// The records at these offsets; none where the next one stands behind. What no broker tells in time is left out.
    ///
    /// # Errors
    /// The client cannot be made.
    pub async fn records(&self, wanted: Vec<(Partition, i64)>) -> anyhow::Result<BTreeMap<Partition, Option<Digest>>> {
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut reader = self.clone();
        // One record of each is enough, and a broker gives whole batches.
        for (name, value) in [
            ("auto.offset.reset", "error"),
            ("fetch.message.max.bytes", "65536"),
            ("fetch.max.bytes", "1048576"),
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "1024"),
            ("enable.auto.offset.store", "false"),
        ] {
            reader.0.set(name, value);
        }
        reader.ask(move |consumer| records(consumer, &wanted)).await
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

fn records(
    consumer: &BaseConsumer<Quiet>,
    wanted: &[(Partition, i64)],
) -> anyhow::Result<BTreeMap<Partition, Option<Digest>>> {
    let mut assigned = TopicPartitionList::with_capacity(wanted.len());
    for ((topic, partition), offset) in wanted {
        assigned.add_partition_offset(topic, *partition, Offset::Offset(*offset)).context("a stored offset")?;
    }
    consumer.assign(&assigned).context("the records cannot be had")?;
    let (mut found, until) = (BTreeMap::new(), Instant::now() + kafka::ANSWER_WITHIN);
    while found.len() < wanted.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // An error is that of one partition, or of a broker that is tried again.
        let Some(Ok(message)) = consumer.poll(left) else { continue };
        let partition = (message.topic().to_owned(), message.partition());
        let Some((_, offset)) = wanted.iter().find(|(one, _)| *one == partition) else { continue };
        found.entry(partition).or_insert_with(|| (message.offset() == *offset).then(|| record::of_message(&message)));
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

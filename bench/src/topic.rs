//! Reading a topic to its end, many messages at a time.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
};
use testing::Topic;
use tokio::task::spawn_blocking;
use uuid::Uuid;

/// As many as the services make.
pub const PARTITIONS: i32 = 6;

const WITHIN: Duration = Duration::from_secs(30);

/// A message and where it is.
pub type Place = (Uuid, i32, i64);
/// The same, with what its key and its value are hashed to.
pub type Stored = (Uuid, i32, i64, u64);

/// A consumer of the whole topic, from its beginning.
pub fn consumer(topic: &Topic, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
    let consumer = unassigned(topic, settings)?;
    assign(&consumer, topic, |_| Ok(Offset::Beginning))?;
    Ok(consumer)
}

/// A consumer of what comes onto the topic from now on.
pub fn consumer_from_now(topic: &Topic, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
    let consumer = unassigned(topic, settings)?;
    assign(&consumer, topic, |partition| {
        let (_, high) = consumer.fetch_watermarks(&topic.name, partition, WITHIN).context("watermarks")?;
        Ok(Offset::Offset(high))
    })?;
    Ok(consumer)
}

fn unassigned(topic: &Topic, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &topic.brokers).set("group.id", "bench").set("enable.auto.commit", "false");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().context("a consumer")
}

fn assign(consumer: &BaseConsumer, topic: &Topic, from: impl Fn(i32) -> Result<Offset>) -> Result<()> {
    let mut wanted = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        wanted.add_partition_offset(&topic.name, partition, from(partition)?).context("a partition")?;
    }
    consumer.assign(&wanted).context("the topic cannot be read")
}

/// What `read` makes of each message on the topic.
pub async fn each<T: Send + 'static>(
    topic: &Topic,
    settings: &'static [(&'static str, &'static str)],
    read: impl Fn(&BorrowedMessage<'_>) -> Result<T> + Send + 'static,
) -> Result<Vec<T>> {
    let topic = topic.clone();
    let reading = move || {
        let consumer = consumer(&topic, settings)?;
        // Every offset holds a message: no producer here uses transactions.
        let mut left = 0;
        for partition in 0..PARTITIONS {
            let (low, high) = consumer.fetch_watermarks(&topic.name, partition, WITHIN).context("watermarks")?;
            left += high - low;
        }
        let mut all = Vec::with_capacity(usize::try_from(left).unwrap_or_default());
        while left > 0 {
            let message = consumer.poll(WITHIN).context("the topic cannot be read to its end")??;
            all.push(read(&message)?);
            left -= 1;
        }
        Ok(all)
    };
    spawn_blocking(reading).await.context("reading the topic")?
}

/// Every message on the topic, by reference.
pub async fn stored(topic: &Topic) -> Result<Vec<Stored>> {
    let mut stored = each(topic, &[], |message| {
        let value = message.payload().unwrap_or_default();
        let message_ref = message_ref(value).context("a message without messageRef")?;
        Ok((message_ref, message.partition(), message.offset(), hash(message.key().unwrap_or_default(), value)))
    })
    .await?;
    stored.sort_unstable();
    if let Some(pair) = stored.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        ensure!(false, "message {} is on the topic more than once", pair[0].0);
    }
    Ok(stored)
}

/// Of the bytes of a message.
pub fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

/// By its text, which is three times as fast as parsing half a million values.
pub fn message_ref(value: &[u8]) -> Option<Uuid> {
    let rest = value.strip_prefix(br#"{"messageRef":""#)?;
    Uuid::try_parse_ascii(rest.get(..36)?).ok()
}

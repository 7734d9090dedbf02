//! Reads the topic, without a group: nothing is committed and no consumer is disturbed.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde::Deserialize;
use shared::runtime::kafka::{self, Quiet};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;

/// So long without a message or an end, and no broker answers.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Records between two places that are read rather than jumped over.
const GAP: i64 = 10_000;
/// Records on their way.
const BUFFERED: usize = 4000;

/// A message of this service as it stands on the topic.
#[derive(Clone, Debug)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub message_ref: Uuid,
    pub activity_at: OffsetDateTime,
}

/// What does not stand where it should.
#[derive(Debug, Default)]
pub struct Missing {
    pub places: Vec<(i32, i64, Uuid)>,
    /// Places below the beginning of the topic.
    pub deleted: u64,
}

#[derive(Clone)]
pub struct Reader {
    consumer: Arc<BaseConsumer<Quiet>>,
    topic: Arc<str>,
    /// Of this service, and of this cell of it.
    source: &'static str,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// What is read of a value.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Value {
    message_ref: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    activity_at: OffsetDateTime,
}

impl Reader {
    /// # Errors
    /// librdkafka refuses a setting.
    pub fn new(kafka: &kafka::Settings, topic: &str, source: &'static str) -> anyhow::Result<Self> {
        let config = kafka.client(&[
            // librdkafka wants a name to assign partitions; it joins no group and commits nothing.
            ("group.id", "order-service-verify"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "error"),
            // Somebody else's open transaction hides nothing of ours.
            ("isolation.level", "read_uncommitted"),
            ("queued.max.messages.kbytes", "4096"),
            ("fetch.max.bytes", &kafka.fetch_max_bytes(2_097_152)),
        ]);
        let consumer = config.create_with_context(Quiet).context("kafka.properties")?;
        Ok(Self { consumer: Arc::new(consumer), topic: topic.into(), source })
    }

    /// Every message of this service that was sent since, up to what is the end now, and more where that is in doubt: a
    /// message has the time of the host that sent it, whose clock may be off by days. So times are believed of a partition of
    /// which one of the `firsts` since then is known, and stands behind what they say.
    pub fn since(&self, since: OffsetDateTime, firsts: BTreeMap<i32, i64>) -> mpsc::Receiver<anyhow::Result<Record>> {
        let (found, records) = mpsc::channel(BUFFERED);
        let reader = self.clone();
        tokio::task::spawn_blocking(move || {
            let read = reader.bounds().and_then(|bounds| {
                let by_time = reader.offsets_at(bounds.keys().copied(), since)?;
                let spans = bounds.iter().map(|(partition, (low, high))| {
                    let (by_time, first) = (by_time.get(partition), firsts.get(partition));
                    (*partition, begin(*low, by_time.copied(), first.copied()), *high)
                });
                reader.read(&spans.collect::<Vec<_>>(), |record| match record {
                    // An error says that nobody listens any more.
                    Some(record) => found.blocking_send(Ok(record)).is_ok(),
                    None => true,
                })
            });
            if let Err(error) = read {
                drop(found.blocking_send(Err(error)));
            }
        });
        records
    }

    /// Those of `wanted` that do not stand where they should.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn without(&self, wanted: BTreeMap<i32, BTreeMap<i64, Uuid>>) -> anyhow::Result<Missing> {
        let reader = self.clone();
        tokio::task::spawn_blocking(move || reader.missing(wanted)).await?
    }

    fn missing(&self, mut wanted: BTreeMap<i32, BTreeMap<i64, Uuid>>) -> anyhow::Result<Missing> {
        let mut missing = Missing::default();
        if wanted.is_empty() {
            return Ok(missing);
        }
        let bounds = self.bounds()?;
        let mut rounds: Vec<Vec<(i32, i64, i64)>> = Vec::new();
        for (partition, places) in &mut wanted {
            let (low, high) = bounds.get(partition).copied().unwrap_or((0, 0));
            let kept = places.split_off(&low);
            missing.deleted += places.len() as u64;
            *places = kept;
            for (number, (first, last)) in stretches(places.keys().copied().filter(|offset| *offset < high)).enumerate()
            {
                if rounds.len() == number {
                    rounds.push(Vec::new());
                }
                rounds[number].push((*partition, first, last + 1));
            }
        }
        for spans in rounds {
            self.read(&spans, |record| {
                if let Some(record) = record
                    && let Some(places) = wanted.get_mut(&record.partition)
                    && places.get(&record.offset) == Some(&record.message_ref)
                {
                    places.remove(&record.offset);
                }
                true
            })?;
        }
        for (partition, places) in wanted {
            missing.places.extend(places.into_iter().map(|(offset, message_ref)| (partition, offset, message_ref)));
        }
        Ok(missing)
    }

    /// The first offset of each partition, and the one behind the last.
    fn bounds(&self) -> anyhow::Result<BTreeMap<i32, (i64, i64)>> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), kafka::ANSWER_WITHIN);
        let metadata = metadata.context("no broker tells of the topic")?;
        let topic = metadata.topics().iter().find(|topic| topic.error().is_none());
        let topic = topic.with_context(|| format!("there is no topic {}", self.topic))?;
        let bounds = topic.partitions().iter().map(|partition| {
            let bounds = self.consumer.fetch_watermarks(&self.topic, partition.id(), kafka::ANSWER_WITHIN);
            Ok((partition.id(), bounds.with_context(|| format!("partition {} cannot be asked", partition.id()))?))
        });
        bounds.collect()
    }

    fn offsets_at(
        &self,
        partitions: impl Iterator<Item = i32>,
        at: OffsetDateTime,
    ) -> anyhow::Result<BTreeMap<i32, i64>> {
        let milliseconds = i64::try_from(at.unix_timestamp_nanos() / 1_000_000).context("the span")?.max(0);
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            asked.add_partition_offset(&self.topic, partition, Offset::Offset(milliseconds))?;
        }
        let found = self.consumer.offsets_for_times(asked, kafka::ANSWER_WITHIN).context("offsets by time")?;
        let offsets = found.elements().into_iter().filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            // Nothing was sent since.
            _ => None,
        });
        Ok(offsets.collect())
    }

    /// Reads each partition from an offset on and before another, until `each` wants no more. None stands for a
    /// record that is none of this service.
    fn read(&self, spans: &[(i32, i64, i64)], mut each: impl FnMut(Option<Record>) -> bool) -> anyhow::Result<()> {
        let mut left: BTreeMap<i32, i64> = BTreeMap::new();
        let mut assigned = TopicPartitionList::new();
        for (partition, from, before) in spans.iter().filter(|(_, from, before)| from < before) {
            left.insert(*partition, *before);
            assigned.add_partition_offset(&self.topic, *partition, Offset::Offset(*from))?;
        }
        self.consumer.assign(&assigned).context("the topic cannot be read")?;
        let mut heard = Instant::now();
        while !left.is_empty() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(before) = left.get(&partition).copied() else { continue };
                    if offset < before && !each(record(&message, self.source)) {
                        break;
                    }
                    if offset + 1 >= before {
                        left.remove(&partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    left.remove(&partition);
                }
                // Of a broker that is tried again.
                Some(Err(error)) if heard.elapsed() > SILENT_FOR => {
                    return Err(error).context("the topic cannot be read");
                }
                Some(Err(_)) => {}
                None if heard.elapsed() > SILENT_FOR => bail!("the topic cannot be read: no broker answers"),
                None => {}
            }
        }
        Ok(self.consumer.unassign()?)
    }
}

/// Where to begin to read a partition.
fn begin(low: i64, by_time: Option<i64>, first: Option<i64>) -> i64 {
    let is_believed = |by_time: &i64| first.is_some_and(|first| *by_time <= first);
    by_time.filter(is_believed).unwrap_or(low).max(low)
}

/// A message of this source; others may use the topic too.
fn record(message: &impl Message, source: &str) -> Option<Record> {
    let Value { message_ref, activity_at } = serde_json::from_slice(message.payload()?).ok()?;
    let is_ours = message.headers().is_none_or(|headers| {
        kafka::headers(headers).all(|header| header.key != "ce_source" || header.value == Some(source.as_bytes()))
    });
    is_ours.then(|| Record { partition: message.partition(), offset: message.offset(), message_ref, activity_at })
}

/// Runs of places that are near each other.
fn stretches(places: impl Iterator<Item = i64>) -> impl Iterator<Item = (i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for place in places {
        match runs.last_mut() {
            Some((_, last)) if place - *last <= GAP => *last = place,
            _ => runs.push((place, place)),
        }
    }
    runs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_believed_where_a_place_that_is_known_agrees() {
        assert_eq!(begin(3, Some(50), Some(60)), 50);
        // The host of what is known is behind; nothing is known, or all that was sent since has an older time.
        assert_eq!(begin(3, Some(50), Some(40)), 3);
        assert_eq!(begin(3, Some(50), None), 3);
        assert_eq!(begin(3, None, Some(60)), 3);
        assert_eq!(begin(55, Some(50), Some(60)), 55);
    }
}

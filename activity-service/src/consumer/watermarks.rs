//! What the broker knows of a partition: which messages it has, from the low watermark on up to the
//! high one, up to where the group has told that it is done, and which record stands at an offset.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer, StreamConsumer},
    error::{KafkaError, KafkaResult},
    message::Message,
};
use shared::runtime::kafka::{self, ClosedAside, Quiet};
use tokio::sync::oneshot;

use super::reading::SESSION;
use crate::{
    place::Partition,
    record::{self, Digest},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that can still be read.
    pub low: i64,
    /// Up to here nothing belongs to a transaction that is still open; what stands behind is read when that ends.
    pub stable: i64,
    /// The offset that the next message will have.
    pub high: i64,
}

/// What is known of each partition that was asked about. Of one that has no leader, or whose leader does not
/// answer, only why.
pub type Asked = BTreeMap<Partition, Result<Watermarks, String>>;

/// Offsets of a partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub partition: Partition,
    pub from: i64,
    /// The first offset behind it.
    pub to: i64,
}

/// Records that were looked for.
#[derive(Debug, Default)]
pub struct Records {
    /// None where the next one stands behind.
    pub found: BTreeMap<Partition, Option<Digest>>,
    /// What was said last while others did not come.
    pub failure: Option<KafkaError>,
}

/// How long the leader of some partitions is waited for: others are asked after it.
const LEADER_WITHIN: Duration = Duration::from_secs(2);
/// And all of them together.
const LEADERS_WITHIN: Duration = Duration::from_secs(8);

/// Asks the brokers, by clients that stay connected.
#[derive(Clone)]
pub struct Broker {
    settings: kafka::Settings,
    group_id: Arc<str>,
    clients: Arc<kafka::Renewed<Clients>>,
}

/// A client that reads the progress of the sources, and is asked about offsets as well.
pub type Reader = StreamConsumer<Quiet>;

/// One for each isolation level: what they are told of the end of a partition differs.
struct Clients {
    uncommitted: BaseConsumer<Quiet>,
    committed: Arc<ClosedAside<Reader>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    /// # Errors
    /// librdkafka refuses a setting.
    pub fn new(settings: &kafka::Settings, group_id: &str) -> anyhow::Result<Self> {
        let group_id: Arc<str> = group_id.into();
        let make = {
            let group_id = Arc::clone(&group_id);
            move |settings: &kafka::Settings| Clients::new(settings, &group_id)
        };
        let clients = Arc::new(kafka::Renewed::new(settings, make)?);
        Ok(Self { settings: settings.clone(), group_id, clients })
    }

    /// For the topic of which no group keeps the offsets. Another one once the secrets in files have changed.
    #[must_use]
    pub fn reader(&self) -> Arc<ClosedAside<Reader>> {
        Arc::clone(&self.clients.now().committed)
    }

    /// All partitions of topics; those of one that is not there, or may not be read, are left out.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn partitions(&self, topics: Vec<String>) -> anyhow::Result<Vec<Partition>> {
        let clients = self.clients.now();
        ask(move || Ok(known(&clients.uncommitted, topics.iter().map(String::as_str))?.into_keys().collect())).await
    }

    /// The watermarks of `partitions`; those that cannot be asked are left out.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn watermarks(&self, partitions: Vec<Partition>) -> anyhow::Result<BTreeMap<Partition, Watermarks>> {
        let asked = self.each(partitions).await?;
        Ok(asked.into_iter().filter_map(|(partition, marks)| Some((partition, marks.ok()?))).collect())
    }

    /// The watermarks of `partitions`, of each by itself.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn each(&self, partitions: Vec<Partition>) -> anyhow::Result<Asked> {
        let clients = self.clients.now();
        ask(move || watermarks(&clients, &partitions)).await
    }

    /// The offsets that the group has committed of `partitions`.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn committed(&self, partitions: Vec<Partition>) -> anyhow::Result<BTreeMap<Partition, i64>> {
        let clients = self.clients.now();
        ask(move || committed(&clients.uncommitted, &partitions)).await
    }

    /// The records at these offsets. What no broker tells in time is left out.
    ///
    /// # Errors
    /// The client cannot be made.
    pub async fn records(&self, wanted: Vec<(Partition, i64)>) -> anyhow::Result<Records> {
        if wanted.is_empty() {
            return Ok(Records::default());
        }
        let config = config_of_records(&self.settings, &self.group_id);
        ask(move || {
            let consumer = BaseConsumer::from_config_and_context(&config, Quiet).context("kafka.properties")?;
            records(&consumer, &wanted)
        })
        .await
    }

    /// Whether a message stands in each of these spans, and not only what belongs to transactions, their markers and what
    /// they have given up. Of what is not there any more, or where a transaction is still open, nobody can say. What no
    /// broker tells in time is left out.
    ///
    /// # Errors
    /// No broker answers, or the client cannot be made.
    pub async fn have_messages(&self, spans: BTreeSet<Span>) -> anyhow::Result<BTreeMap<Span, bool>> {
        let partitions: BTreeSet<_> = spans.iter().map(|span| span.partition.clone()).collect();
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let marks = self.watermarks(partitions.into_iter().collect()).await?;
        let is_stable = |Span { partition, from, to }: &Span| {
            marks.get(partition).is_some_and(|marks| marks.low <= *from && marks.stable >= *to)
        };
        let spans: BTreeSet<_> = spans.into_iter().filter(is_stable).collect();
        if spans.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut config = config(&self.settings, &self.group_id);
        for (name, value) in
            [("auto.offset.reset", "error"), ("enable.partition.eof", "true"), ("queued.max.messages.kbytes", "1024")]
        {
            config.set(name, value);
        }
        ask(move || {
            let consumer = BaseConsumer::from_config_and_context(&config, Quiet).context("kafka.properties")?;
            have_messages(&consumer, spans)
        })
        .await
    }
}

/// One record of each partition is enough, and a broker gives whole batches. How much it gives at a time the operator may have
/// said for the reading client: what fits that one fits this one then.
pub(super) fn config_of_records(settings: &kafka::Settings, group_id: &str) -> ClientConfig {
    let mut config = config(settings, group_id);
    if settings.property("fetch.max.bytes").is_none() {
        config.set("fetch.max.bytes", settings.fetch_max_bytes(1_048_576));
    }
    for (name, value) in [
        ("auto.offset.reset", "error"),
        // One that waits because there is something of others would be asked after them, again and again.
        ("fetch.queue.backoff.ms", "5"),
        ("queued.min.messages", "1"),
        ("queued.max.messages.kbytes", "1024"),
    ] {
        config.set(name, value);
    }
    config
}

/// They ask about the group and never join it. The session is the reading client's, so that whatever settings fit that
/// one fit these.
fn config(settings: &kafka::Settings, group_id: &str) -> ClientConfig {
    settings.client(&[
        ("group.id", group_id),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("session.timeout.ms", &SESSION.as_millis().to_string()),
    ])
}

impl Clients {
    fn new(settings: &kafka::Settings, group_id: &str) -> anyhow::Result<Self> {
        let of = |level: &str| {
            let mut config = config(settings, group_id);
            config.set("isolation.level", level);
            config
        };
        let uncommitted = BaseConsumer::from_config_and_context(&of("read_uncommitted"), Quiet);
        let committed = Reader::from_config_and_context(&of("read_committed"), Quiet);
        Ok(Self {
            uncommitted: uncommitted.context("kafka.properties")?,
            committed: Arc::new(ClosedAside::new(committed.context("kafka.properties")?)),
        })
    }
}

/// The questions block: a thread of its own, because an exit would wait for one of the runtime's.
async fn ask<T: Send + 'static>(question: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    let (answer, answered) = oneshot::channel();
    std::thread::spawn(move || {
        // An error says that nobody waits any more.
        let (Ok(()) | Err(_)) = answer.send(question());
    });
    answered.await.context("the question to the broker broke off")?
}

fn watermarks(clients: &Clients, partitions: &[Partition]) -> anyhow::Result<Asked> {
    // Each client has to hear of new partitions and leaders itself.
    leaders(&**clients.committed, partitions)?;
    let (by_leader, mut asked) = leaders(&clients.uncommitted, partitions)?;
    let until = Instant::now() + LEADERS_WITHIN;
    for led in by_leader.into_values() {
        if Instant::now() >= until {
            asked.extend(led.into_iter().map(|one| (one, Err("others took too long to answer".to_owned()))));
            continue;
        }
        let answer = || -> KafkaResult<_> {
            let low = offsets(&clients.uncommitted, &led, Offset::Beginning)?;
            // Asked before the other: what is stable is never ahead.
            let stable = offsets(&**clients.committed, &led, Offset::End)?;
            Ok((low, stable, offsets(&clients.uncommitted, &led, Offset::End)?))
        };
        let answer = answer();
        for partition in led {
            let marks = match &answer {
                Ok((low, stable, high)) => [low, stable, high]
                    .map(|offsets| offsets.get(&partition).cloned().unwrap_or_else(|| Err("no answer".into())))
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()
                    .map(|marks| Watermarks { low: marks[0], stable: marks[1], high: marks[2] }),
                Err(error) => Err(format!("its leader does not answer: {error}")),
            };
            asked.insert(partition, marks);
        }
    }
    Ok(asked)
}

/// The partitions of topics, each with its leader, below 0 where there is none.
fn known<'a>(
    consumer: &impl Consumer<Quiet>,
    topics: impl IntoIterator<Item = &'a str>,
) -> anyhow::Result<BTreeMap<Partition, i32>> {
    let mut known = BTreeMap::new();
    for name in topics {
        let metadata = consumer.fetch_metadata(Some(name), kafka::ANSWER_WITHIN).context("no broker answers")?;
        for topic in metadata.topics().iter().filter(|topic| topic.error().is_none()) {
            known.extend(topic.partitions().iter().map(|one| (Partition::new(name, one.id()), one.leader())));
        }
    }
    Ok(known)
}

/// The partitions by the broker that leads them; and why not, of those that nobody leads.
fn leaders(
    consumer: &impl Consumer<Quiet>,
    partitions: &[Partition],
) -> anyhow::Result<(BTreeMap<i32, Vec<Partition>>, Asked)> {
    let topics: BTreeSet<&str> = partitions.iter().map(|one| one.topic.as_str()).collect();
    let known = known(consumer, topics)?;
    let (mut by_leader, mut asked) = (BTreeMap::<i32, Vec<Partition>>::new(), Asked::new());
    for partition in partitions {
        match known.get(partition) {
            Some(leader) if *leader >= 0 => by_leader.entry(*leader).or_default().push(partition.clone()),
            Some(_) => drop(asked.insert(partition.clone(), Err("it has no leader".to_owned()))),
            None => drop(asked.insert(partition.clone(), Err("it is not there, or may not be read".to_owned()))),
        }
    }
    Ok((by_leader, asked))
}

/// The first or the last offset of partitions with the same leader.
fn offsets(
    consumer: &impl Consumer<Quiet>,
    partitions: &[Partition],
    which: Offset,
) -> KafkaResult<BTreeMap<Partition, Result<i64, String>>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for Partition { topic, number } in partitions {
        asked.add_partition_offset(topic, *number, which)?;
    }
    let found = consumer.offsets_for_times(asked, LEADER_WITHIN)?;
    let found = found.elements().into_iter().map(|element| {
        let offset = match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => Ok(offset),
            (Ok(()), _) => Err("no answer".to_owned()),
            (Err(error), _) => Err(error.to_string()),
        };
        (Partition::new(element.topic(), element.partition()), offset)
    });
    Ok(found.collect())
}

fn records(consumer: &BaseConsumer<Quiet>, wanted: &[(Partition, i64)]) -> anyhow::Result<Records> {
    let mut assigned = TopicPartitionList::with_capacity(wanted.len());
    for (Partition { topic, number }, offset) in wanted {
        assigned.add_partition_offset(topic, *number, Offset::Offset(*offset)).context("a stored offset")?;
    }
    consumer.assign(&assigned).context("the records cannot be had")?;
    let (Records { mut found, mut failure }, until) = (Records::default(), Instant::now() + kafka::ANSWER_WITHIN);
    while found.len() < wanted.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let message = match consumer.poll(left) {
            Some(Ok(message)) => message,
            // That of one partition, or of a broker that is tried again.
            Some(Err(error)) => {
                failure = Some(error);
                continue;
            }
            None => continue,
        };
        let partition = Partition::new(message.topic(), message.partition());
        let Some((_, offset)) = wanted.iter().find(|(one, _)| *one == partition) else { continue };
        // What stands behind it would take the room of those that are not found yet.
        let mut done = TopicPartitionList::with_capacity(1);
        done.add_partition(message.topic(), message.partition());
        consumer.pause(&done).context("the records cannot be had")?;
        found.entry(partition).or_insert_with(|| (message.offset() == *offset).then(|| record::of_message(&message)));
    }
    Ok(Records { found, failure })
}

/// The client goes over what is no message by itself, and says when it has come to the end.
fn have_messages(consumer: &BaseConsumer<Quiet>, mut spans: BTreeSet<Span>) -> anyhow::Result<BTreeMap<Span, bool>> {
    let (mut looked_into, until) = (BTreeMap::new(), Instant::now() + kafka::ANSWER_WITHIN);
    // One topic after the other: what comes to an end is told by the number alone. And one span of each partition.
    while let Some(topic) = spans.first().map(|span| span.partition.topic.clone()) {
        let mut now = BTreeMap::<i32, Span>::new();
        for span in spans.iter().filter(|span| span.partition.topic == topic) {
            now.entry(span.partition.number).or_insert_with(|| span.clone());
        }
        let mut assigned = TopicPartitionList::with_capacity(now.len());
        for span in now.values() {
            spans.remove(span);
            let Partition { topic, number } = &span.partition;
            assigned.add_partition_offset(topic, *number, Offset::Offset(span.from)).context("a stored offset")?;
        }
        consumer.assign(&assigned).context("the partitions cannot be read")?;
        while !now.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(looked_into);
            }
            let (number, next) = match consumer.poll(left) {
                Some(Ok(message)) => (message.partition(), message.offset()),
                Some(Err(KafkaError::PartitionEOF(number))) => (number, i64::MAX),
                // An error is that of one partition, or of a broker that is tried again.
                Some(Err(_)) | None => continue,
            };
            if let Some(span) = now.remove(&number) {
                let has_messages = next < span.to;
                looked_into.insert(span, has_messages);
            }
        }
    }
    Ok(looked_into)
}

fn committed(consumer: &BaseConsumer<Quiet>, partitions: &[Partition]) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for Partition { topic, number } in partitions {
        asked.add_partition(topic, *number);
    }
    let found = consumer.committed_offsets(asked, kafka::ANSWER_WITHIN).context("the offsets cannot be had")?;
    let known = found.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(next) => Some((Partition::new(element.topic(), element.partition()), next)),
        _ => None,
    });
    Ok(known.collect())
}

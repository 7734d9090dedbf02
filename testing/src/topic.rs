use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedHeaders, Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::{Kafka, kafka::client, requests, stack};

const WITHIN: Duration = Duration::from_secs(30);

/// Where a partition begins and ends. The brokers agree on the leader of one just made a moment
/// after they have said that it is there.
pub(crate) fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let begun = Instant::now();
    loop {
        let error = match consumer.fetch_watermarks(topic, partition, WITHIN) {
            Ok(marks) => return marks,
            Err(error) => error,
        };
        let passes = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
        );
        assert!(passes && begun.elapsed() < WITHIN, "the ends of partition {partition}: {error}");
        // It reads nothing yet: this only waits, and lets the client learn of the leader.
        drop(consumer.poll(Duration::from_millis(50)));
    }
}

/// rdkafka panics where a name is not UTF-8.
fn readable(headers: &BorrowedHeaders) -> Vec<Header<'_, &[u8]>> {
    let read = |index| catch_unwind(AssertUnwindSafe(|| headers.try_get(index))).ok().flatten();
    (0..headers.count()).filter_map(read).collect()
}

/// A topic of a test's own.
#[derive(Clone, Debug)]
pub struct Topic {
    pub brokers: String,
    pub name: String,
}

/// A message as a reader of the topic gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// In their order on the wire.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Received {
    /// The header's value as text, empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found
            .and_then(|(_, value)| value.as_deref())
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default()
    }
}

impl Topic {
    /// A name on the stack's broker; the service creates the topic.
    #[must_use]
    pub fn unborn() -> Self {
        Self::unborn_at(stack("KAFKA_BROKERS"))
    }

    /// A name on a broker of the test's own.
    #[must_use]
    pub fn unborn_on(kafka: &Kafka) -> Self {
        Self::unborn_at(kafka.brokers())
    }

    /// A name on other brokers.
    #[must_use]
    pub fn unborn_at(brokers: String) -> Self {
        Self { brokers, name: format!("test.{}", Uuid::now_v7().simple()) }
    }

    /// On the stack's broker.
    pub async fn new(partitions: i32, settings: &[(&str, &str)]) -> Self {
        let topic = Self::unborn();
        topic.create(partitions, settings).await;
        topic
    }

    pub async fn create(&self, partitions: i32, settings: &[(&str, &str)]) {
        let mut wanted = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            wanted = wanted.set(name, value);
        }
        let made = self.admin().create_topics([&wanted], &options()).await.unwrap();
        made.into_iter().for_each(|one| drop(one.unwrap()));
    }

    /// With a replica of each partition on each of these brokers.
    pub async fn create_on(&self, brokers: &[&[i32]], settings: &[(&str, &str)]) {
        let mut wanted =
            NewTopic::new(&self.name, i32::try_from(brokers.len()).unwrap(), TopicReplication::Variable(brokers));
        for (name, value) in settings {
            wanted = wanted.set(name, value);
        }
        let made = self.admin().create_topics([&wanted], &options()).await.unwrap();
        made.into_iter().for_each(|one| drop(one.unwrap()));
    }

    /// Changes one of the topic's settings, `max.message.bytes` for one. The broker forgets those
    /// set before.
    pub async fn set(&self, name: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.name)).set(name, value);
        let done = self.admin().alter_configs([&change], &options()).await.unwrap();
        done.into_iter().for_each(|one| drop(one.unwrap()));
    }

    /// One of the topic's settings.
    pub async fn get(&self, name: &str) -> String {
        let asked = [ResourceSpecifier::Topic(&self.name)];
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            // Of several brokers one may not know of a topic yet that another one has made.
            let described = self.admin().describe_configs(&asked, &options()).await.unwrap().remove(0);
            if let Some(value) = described.ok().and_then(|found| found.get(name)?.value.clone()) {
                return value;
            }
            assert!(Instant::now() < end, "the topic has no setting {name}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn delete(&self) {
        let done = self.admin().delete_topics(&[&self.name], &options()).await.unwrap();
        done.into_iter().for_each(|one| drop(one.unwrap()));
    }

    /// Writes messages as they are, in this order where they have the same partition.
    pub async fn produce(&self, messages: &[Received]) {
        send(&producer(&self.brokers), &self.name, messages).await;
    }

    /// Writes a message with a header whose name may be any bytes, to partition 0.
    pub async fn produce_with_header(&self, value: &[u8], header: &[u8]) {
        requests::produce(&self.brokers, &self.name, value, header).await;
    }

    /// Everything on the topic, by partition and offset. Nothing where there is no topic yet.
    pub async fn dump(&self) -> Vec<Received> {
        let topic = self.clone();
        spawn_blocking(move || topic.read_all()).await.unwrap()
    }

    fn read_all(&self) -> Vec<Received> {
        let consumer: BaseConsumer = client(&self.brokers).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(&self.name), WITHIN).unwrap();
        let mut wanted = TopicPartitionList::new();
        let mut ends = Vec::new();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = watermarks(&consumer, &self.name, partition.id());
            if low < high {
                wanted.add_partition_offset(&self.name, partition.id(), Offset::Beginning).unwrap();
                ends.push((partition.id(), high));
            }
        }
        consumer.assign(&wanted).unwrap();
        let (mut found, begun) = (Vec::new(), Instant::now());
        while !ends.is_empty() {
            let message = match consumer.poll(WITHIN).expect("the topic can be read to its end") {
                Ok(message) => message,
                // On a busy machine a connection may be late: the client makes another one.
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
                )) if begun.elapsed() < WITHIN => continue,
                Err(error) => panic!("{} cannot be read: {error}", self.name),
            };
            let headers = message.headers().map(readable).unwrap_or_default();
            found.push(Received {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: headers.into_iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect(),
            });
            ends.retain(|(partition, end)| *partition != message.partition() || *end > message.offset() + 1);
        }
        found.sort_unstable_by_key(|message| (message.partition, message.offset));
        found
    }

    /// The offsets a consumer group has committed, by partition; -1 where there is none.
    pub async fn committed(&self, group: &str, partitions: i32) -> Vec<i64> {
        let (topic, group) = (self.clone(), group.to_owned());
        let ask = move || {
            let consumer: BaseConsumer = client(&topic.brokers).set("group.id", group).create().unwrap();
            let mut asked = TopicPartitionList::new();
            for partition in 0..partitions {
                asked.add_partition(&topic.name, partition);
            }
            let answer = consumer.committed_offsets(asked, WITHIN).unwrap();
            answer.elements().iter().map(|e| if let Offset::Offset(at) = e.offset() { at } else { -1 }).collect()
        };
        spawn_blocking(ask).await.unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        client(&self.brokers).create().unwrap()
    }
}

pub(crate) fn producer(brokers: &str) -> FutureProducer {
    // As large as a broker takes a request.
    client(brokers).set("acks", "all").set("message.max.bytes", "100000000").create().unwrap()
}

pub(crate) async fn send(producer: &FutureProducer, topic: &str, messages: &[Received]) {
    let mut sent = Vec::with_capacity(messages.len());
    for message in messages {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        record.partition = (message.partition >= 0).then_some(message.partition);
        record.key = message.key.as_deref();
        record.payload = message.value.as_deref();
        let queued = producer.send_result(record).map_err(|(error, _)| error);
        sent.push(queued.expect("the producer has room for a test's messages"));
    }
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(Timeout::After(WITHIN))).operation_timeout(Some(Timeout::After(WITHIN)))
}

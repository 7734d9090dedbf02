//! The producers: one that batches, and one whose every request holds a single message.
//!
//! Idempotence is on and no message ever times out: an outage is waited out under the same sequence
//! numbers, so that nothing is sent twice and nothing ends as "possibly persisted".

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use anyhow::Context;
use fail::fail_point;
use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
    types::RDKafkaType,
};
use shared::runtime::{health::TaskStatus, kafka};
use tokio::sync::{Notify, mpsc};

use super::{
    BrokerAnswer, Outgoing,
    answer::{self, Verdict},
    lanes::{Entry, Lanes},
    outage::Delivered,
};
use crate::{
    flight::{Flight, Permit},
    message::Service,
    reach::Reach,
    settings::Settings,
};

/// More than any message has: what is given is bounded, and so are the names and texts of the headers.
const KILOBYTES: u32 = 20;

#[derive(Debug)]
pub(super) struct Producers {
    service: Service,
    kafka: kafka::Settings,
    topic: Arc<str>,
    flight: Flight,
    answers: Answers,
    batched: Lane,
    /// Made when the first message has to be sent alone: most processes never need it.
    alone: Option<Lane>,
}

struct Lane(ThreadedProducer<Answers>);

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lane")
    }
}

impl Producers {
    pub(super) fn new(
        config: &Settings,
        answers: mpsc::UnboundedSender<BrokerAnswer>,
        flight: Flight,
        delivered: Delivered,
        reach: Reach,
        lanes: Lanes,
        status: TaskStatus,
    ) -> anyhow::Result<Self> {
        let topic: Arc<str> = config.topic.name.as_str().into();
        let answers = Answers {
            answers,
            topic: Arc::clone(&topic),
            delivered,
            reach,
            lanes,
            failed: Arc::default(),
            failure: kafka::LastFailure::default(),
            credentials: kafka::Credentials::new(&config.kafka),
            status,
            is_alone: false,
        };
        let batched = batching(&config.kafka, flight.bound(), answers.clone())?;
        Ok(Self { service: config.service, kafka: config.kafka.clone(), topic, flight, answers, batched, alone: None })
    }

    /// Until a producer may have failed for good, or is not let in any more with what it knows: from then on it sends
    /// nothing, and says nothing of what it has. Or until somebody gives up what is in flight.
    pub(super) fn failure(&self) -> impl Future<Output = ()> + use<> {
        let (failed, given_up) = (Arc::clone(&self.answers.failed), self.flight.is_given_up());
        async move {
            tokio::select! {
                () = failed.notified() => {}
                () = given_up => {}
            }
        }
    }

    /// Whether the producer has failed for good, and not for what it did not know any better.
    pub(super) fn have_failed(&self) -> bool {
        self.batched.has_failed() && !self.batched.is_outdated()
    }

    /// Hands a message over. What librdkafka refuses at once comes back as an answer like any other.
    pub(super) fn send(&mut self, message: Outgoing, permit: Permit) {
        let (topic, service) = (Arc::clone(&self.topic), self.service);
        let lane = match self.lane(message.alone) {
            Ok(lane) => lane,
            Err(error) => {
                let result = Err(Verdict::Fatal(format!("{error:#}")));
                return self.answers.pass_on(BrokerAnswer { message, permit, result });
            }
        };
        let sent = &message.queued.message;
        let (key, value, headers) = (sent.key(&service), sent.value(&service), sent.headers(&service));
        let headers = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |headers, (name, value)| {
            headers.insert(Header { key: name, value: Some(value) })
        });
        let partition = message.entry.as_ref().and_then(Entry::partition);
        let mut record = BaseRecord::with_opaque_to(&topic, Box::new((message, permit)))
            .key(key.as_str())
            .payload(value.as_str())
            .headers(headers);
        record.partition = partition;
        if let Err((error, record)) = lane.0.send(record) {
            let (message, permit) = *record.delivery_opaque;
            let why = Verdict::of(&error);
            // Refused before it met any neighbour: it was alone.
            let alone = message.alone || matches!(why, Verdict::Rejected(_));
            self.answers.pass_on(BrokerAnswer { message: Outgoing { alone, ..message }, permit, result: Err(why) });
        }
    }

    /// Replaces the producers that have failed for good, that no broker lets in any more, or whose messages are given up.
    /// What they have comes back.
    pub(super) fn rebuild(&mut self, error: &str) -> anyhow::Result<()> {
        let is_given_up = self.flight.take_given_up();
        if self.batched.has_failed() || is_given_up {
            if is_given_up {
                tracing::warn!("what is in flight is others' to send by now: making a new producer");
            } else if self.batched.is_outdated() {
                tracing::info!(
                    "the secrets in files have changed, and a broker refuses the old ones: making a new producer"
                );
            } else {
                tracing::error!(error, "the producer failed for good; making a new one");
            }
            let new = batching(&self.kafka, self.flight.bound(), self.answers.clone())?;
            drop_elsewhere(std::mem::replace(&mut self.batched, new));
        }
        if let Some(failed) = self.alone.take_if(|lane| is_given_up || lane.has_failed()) {
            drop_elsewhere(failed);
        }
        Ok(())
    }

    fn lane(&mut self, alone: bool) -> anyhow::Result<&Lane> {
        if !alone {
            return Ok(&self.batched);
        }
        let made = match self.alone.take() {
            Some(lane) => lane,
            None => {
                let answers = Answers { is_alone: true, ..self.answers.clone() };
                producer(&self.kafka, self.flight.bound(), &[("batch.num.messages", "1")], answers)?
            }
        };
        Ok(self.alone.insert(made))
    }
}

impl Lane {
    fn has_failed(&self) -> bool {
        self.0.client().fatal_error().is_some() || self.is_outdated()
    }

    fn is_outdated(&self) -> bool {
        self.0.client().context().credentials.are_outdated()
    }
}

/// Dropping a producer joins its thread.
fn drop_elsewhere(lane: Lane) {
    drop(tokio::task::spawn_blocking(move || drop(lane)));
}

/// The clients that are made with these settings: a service that reads them gives them to [`kafka::check`].
#[must_use]
pub fn clients(settings: &Settings) -> [(RDKafkaType, ClientConfig); 2] {
    let sends = config(&settings.kafka, settings.publisher.max_in_flight, &BATCHING);
    let makes_topics = settings.kafka.client(&[]);
    [sends, makes_topics].map(|config| (RDKafkaType::RD_KAFKA_PRODUCER, config))
}

/// The publisher lingers itself, so that a stop need not wait for librdkafka's linger to end.
const BATCHING: [(&str, &str); 1] = [("linger.ms", "0")];

fn batching(kafka: &kafka::Settings, max_in_flight: u32, answers: Answers) -> anyhow::Result<Lane> {
    producer(kafka, max_in_flight, &BATCHING, answers)
}

fn producer(
    kafka: &kafka::Settings,
    max_in_flight: u32,
    own: &[(&str, &str)],
    answers: Answers,
) -> anyhow::Result<Lane> {
    let answers = Answers { credentials: kafka::Credentials::new(kafka), ..answers };
    let made = config(kafka, max_in_flight, own).create_with_context(answers);
    made.map(Lane).context("librdkafka refuses the producer's settings")
}

fn config(kafka: &kafka::Settings, max_in_flight: u32, own: &[(&str, &str)]) -> ClientConfig {
    // What bounds the messages in flight are the permits. librdkafka counts a message until it has told of all that it
    // tells of together, and by then others may have the permits of these: twice as many are never too many for it.
    let (messages, kilobytes) = (2 * max_in_flight, 2 * max_in_flight * KILOBYTES);
    let (messages, kilobytes) = (messages.to_string(), kilobytes.to_string());
    let mut settings = vec![
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.timeout.ms", "0"),
        ("queue.buffering.max.messages", messages.as_str()),
        ("queue.buffering.max.kbytes", kilobytes.as_str()),
        ("compression.type", "lz4"),
        // How the end of an outage is seen while there is nothing to send.
        ("statistics.interval.ms", "1000"),
    ];
    settings.extend_from_slice(own);
    kafka.client(&settings)
}

/// Where librdkafka's thread leaves the answers.
#[derive(Clone, Debug)]
struct Answers {
    // Unbounded, because what is in flight is bounded.
    answers: mpsc::UnboundedSender<BrokerAnswer>,
    topic: Arc<str>,
    delivered: Delivered,
    reach: Reach,
    lanes: Lanes,
    failed: Arc<Notify>,
    failure: kafka::LastFailure,
    /// Of the one client.
    credentials: kafka::Credentials,
    status: TaskStatus,
    /// Of the second producer, which knows no more of the topic and hears of it later.
    is_alone: bool,
}

impl Answers {
    fn pass_on(&self, mut answer: BrokerAnswer) {
        let entry = answer.message.entry.take();
        if answer.result.is_ok() {
            if let Some(entry) = entry {
                entry.delivered();
            }
            self.delivered.fetch_add(1, Ordering::Relaxed);
            self.reach.delivered();
            if !self.lanes.any_stands() {
                self.status.ok();
            }
        }
        // Closed only when the process is ending: the row stays as it is in the table.
        drop(self.answers.send(answer));
    }
}

impl Answers {
    /// What the client knows of the topic's partitions, about once a second.
    fn partitions(&self, statistics: &Statistics, is_connected: bool) {
        let topic = statistics.topics.get(&*self.topic);
        // One without a number stands for what has no partition yet.
        let known: Vec<_> = topic
            .iter()
            .flat_map(|topic| &topic.partitions)
            .filter(|(number, partition)| **number >= 0 && !partition.unknown)
            .collect();
        let leaderless: BTreeSet<i32> =
            known.iter().filter(|(_, partition)| partition.leader < 0).map(|(number, _)| **number).collect();
        self.lanes.know(i32::try_from(known.len()).unwrap_or(i32::MAX), leaderless, is_connected);
        let standing = self.lanes.log_standing();
        self.reach.stands(standing.is_some());
        if let Some(standing) = standing {
            // Its line is written already.
            self.status.waiting(standing);
        }
    }
}

impl ClientContext for Answers {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.failure.note(facility, message);
        kafka::Quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if kafka::code(&error) == RDKafkaErrorCode::Fatal {
            self.failed.notify_one();
        }
        self.credentials.note(&error, reason);
        if kafka::code(&error) == RDKafkaErrorCode::AllBrokersDown {
            self.reach.no_broker();
            let reason = self.failure.explain(reason);
            self.status.failing(&reason, "no broker in reach; messages are taken, and wait");
        }
        kafka::Quiet.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        // Bootstrap addresses have negative numbers: to be connected to one says nothing of the cluster.
        let connected = statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        if connected {
            self.failure.forget();
        }
        if self.credentials.are_outdated() {
            self.failed.notify_one();
        }
        let is_let_in = statistics.eos.as_ref().is_some_and(|eos| eos.idemp_state == "Assigned");
        if connected && self.reach.connected() || is_let_in && self.reach.let_in() {
            self.status.ok();
        }
        if !self.is_alone {
            self.partitions(&statistics, connected);
        }
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = Box<(Outgoing, Permit)>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let (message, permit) = *sent;
        self.pass_on(BrokerAnswer { message, permit, result: answer::result_of(delivered) });
        fail_point!("producer::told");
    }
}

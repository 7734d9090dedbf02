//! From the queue to Kafka: messages are handed to the producer in batches and leave this task's
//! sight until the broker has answered; [`marks`] takes the answers.
//!
//! A message is in one place at a time: the queue, the batch that fills, in flight, or waiting here
//! for its next attempt. Its slot travels with it.

mod answer;
mod backoff;
mod lanes;
pub mod marks;
mod outage;
mod parked;
mod partitioner;
mod producer;
pub mod topic;

use std::{pin::pin, time::Duration};

pub use answer::{BrokerAnswer, Outgoing, Returned, Verdict};
use backoff::BackoffHeap;
use fail::fail_point;
use lanes::Admission;
pub use lanes::Lanes;
use outage::Outage;
use parked::Parked;
use producer::Producers;
pub use producer::clients;
use rdkafka::types::RDKafkaErrorCode;
use shared::runtime::{health::TaskStatus, lifecycle::Shutdown};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    flight::{Flight, Permit},
    instance::Instance,
    queue,
    reach::Reach,
    settings::{self, Settings},
};

/// How often the health page is told that announcing is paused.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What is told of a producer whose failure no message has brought to light.
const FAILED: &str = "told by the client itself";
/// Where the broker refuses a message's timestamp.
const CLOCKS: &str =
    "compare this host's clock with the brokers', and see the topic's message.timestamp.before.max.ms and after.max.ms";
/// How often it is looked for what nobody tells: that a partition has come to stand for which messages wait, that the queue
/// is closed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The background task that sends.
#[derive(Debug)]
pub struct Publisher {
    queue: queue::Receiver,
    returned: mpsc::UnboundedReceiver<Returned>,
    producers: Producers,
    topic: topic::Creation,
    flight: Flight,
    instance: Instance,
    lanes: Lanes,
    parked: Parked,
    settings: settings::PublisherSettings,
    waiting: BackoffHeap,
    outage: Outage,
    reach: Reach,
    status: TaskStatus,
}

/// Where messages come from and answers go.
#[derive(Debug)]
pub struct Channels {
    pub queue: queue::Receiver,
    /// For the producers' answers.
    pub answers: mpsc::UnboundedSender<BrokerAnswer>,
    /// The messages that did not get through.
    pub returned: mpsc::UnboundedReceiver<Returned>,
}

impl Publisher {
    /// # Errors
    /// librdkafka refuses its settings.
    pub fn new(
        config: &Settings,
        channels: Channels,
        flight: Flight,
        instance: Instance,
        lanes: Lanes,
        reach: Reach,
        status: TaskStatus,
    ) -> anyhow::Result<Self> {
        let Channels { queue, answers, returned } = channels;
        let outage = Outage::new(&config.publisher);
        Ok(Self {
            queue,
            returned,
            producers: Producers::new(
                config,
                answers,
                flight.clone(),
                outage.delivered(),
                reach.clone(),
                lanes.clone(),
                status.clone(),
            )?,
            topic: topic::Creation::new(&config.kafka, config.topic.of_messages(), config.topic.properties(&[]))?,
            flight,
            instance,
            parked: Parked::new(lanes.clone(), config.service),
            lanes,
            settings: config.publisher.clone(),
            waiting: BackoffHeap::default(),
            outage,
            reach,
            status,
        })
    }

    /// Sends until the queue is closed and empty and everything in flight has landed.
    ///
    /// # Errors
    /// librdkafka refuses to make a new producer after a fatal error.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        self.topic_is_there(&shutdown).await;
        while let Some(batch) = self.next_batch().await? {
            self.wait_out().await?;
            self.hand_over(batch, &shutdown).await?;
        }
        self.drain(&shutdown).await
    }

    /// Sees that there is a topic; in the drain for as long as anything may come that is to be sent.
    async fn topic_is_there(&self, shutdown: &Shutdown) {
        let nothing_comes = async {
            shutdown.drain_begun().await;
            while !(self.queue.is_closed() && self.queue.is_empty()) {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = self.topic.ensure(Some(&self.lanes), &self.status) => {}
            () = nothing_comes => {}
        }
    }

    /// Waits while an operator has paused announcing. False where the process ends meanwhile: what is in memory is left
    /// in its log, for whoever resumes.
    async fn may_announce(&mut self, shutdown: &Shutdown) -> anyhow::Result<bool> {
        let instance = self.instance.clone();
        if !instance.may_be_paused() {
            return Ok(true);
        }
        let mut resumed = pin!(shutdown.unless_draining(instance.resumed()));
        loop {
            // Again and again: what is in flight lands meanwhile, and writes on the same page.
            if instance.is_paused() {
                self.status.waiting("announcing is paused by an operator");
            }
            tokio::select! {
                resumed = &mut resumed => {
                    if resumed.is_some() {
                        self.status.ok();
                    }
                    return Ok(resumed.is_some());
                }
                () = self.producers.failure() => self.replace_failed().await?,
                () = sleep(TELL_EVERY) => {}
            }
        }
    }

    /// Waits until an outage is over, or something may be tried again.
    async fn wait_out(&mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = sleep_until(self.outage.over_at()) => return Ok(()),
                () = self.producers.failure() => self.replace_failed().await?,
            }
        }
    }

    /// A producer has failed for good, is not let in any more, or what it has is given up.
    async fn replace_failed(&mut self) -> anyhow::Result<()> {
        if self.producers.have_failed() {
            self.reach.failed();
            self.status.waiting("the producer has failed for good");
            // Another one may at once like it.
            self.outage.goes_on();
            sleep_until(self.outage.over_at()).await;
        }
        self.producers.rebuild(FAILED)
    }

    fn lingers_for(&self) -> Duration {
        // For a test that wants to find a batch that fills.
        fail_point!("publisher::lingers", |millis| {
            Duration::from_millis(millis.and_then(|millis| millis.parse().ok()).unwrap_or_default())
        });
        self.settings.linger
    }

    /// What is to be sent next: a full batch, or what has come within `publisher.linger` of the
    /// first message, as far as their partitions take more. None when the queue is closed and empty, and of what is
    /// left nothing can be sent.
    async fn next_batch(&mut self) -> anyhow::Result<Option<Vec<Outgoing>>> {
        let full = self.settings.batch_max_messages.min(self.flight.bound()).min(self.settings.queue_capacity) as usize;
        let (mut batch, mut fresh, mut lingers_until) = (Vec::new(), Vec::new(), None);
        let mut is_closed = false;
        loop {
            let now = Instant::now();
            self.parked.take(&mut batch, full);
            while batch.len() < full
                && let Some(due) = self.waiting.next_due(now)
            {
                self.admit(due, &mut batch);
            }
            if !batch.is_empty() {
                let until = *lingers_until.get_or_insert(now + self.lingers_for());
                if batch.len() >= full || until <= now {
                    return Ok(Some(batch));
                }
            }
            if is_closed && (self.parked.is_empty() || self.parked.waits_for_nobody_else()) {
                return Ok(Some(batch).filter(|batch| !batch.is_empty()));
            }
            let wake = lingers_until.into_iter().chain(self.waiting.next_at()).min();
            tokio::select! {
                biased;
                Some(returned) = self.returned.recv() => self.take_back(returned)?,
                () = self.producers.failure() => self.replace_failed().await?,
                () = self.lanes.answered(), if !self.parked.is_empty() => {}
                received = self.queue.recv_many(&mut fresh, full - batch.len()), if !is_closed => {
                    is_closed = received == 0;
                    for queued in fresh.drain(..) {
                        self.admit(Outgoing::from(queued), &mut batch);
                    }
                }
                () = sleep(LOOK_EVERY), if !self.parked.is_empty() => {}
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    /// Into the batch, where its partition takes it now.
    fn admit(&mut self, mut message: Outgoing, batch: &mut Vec<Outgoing>) {
        match self.parked.admission(&message) {
            Admission::Now(entry) => {
                message.entry = Some(entry);
                batch.push(message);
            }
            Admission::Soon(partition) => self.parked.park(partition, message),
            Admission::Back(partition) => self.parked.set_back(partition, message),
        }
    }

    /// Hands a batch to the producer. What came into memory under an identity that has ended meanwhile is
    /// dropped: whoever adopts its log reads it again. So is all of it where the process ends while announcing is paused.
    async fn hand_over(&mut self, batch: Vec<Outgoing>, shutdown: &Shutdown) -> anyhow::Result<()> {
        let count = u32::try_from(batch.len()).expect("a batch is bounded by a u32");
        // Whoever replaces the identity holds all permits while it changes: nobody waits for a
        // confirmation with permits in hand.
        let instance = self.instance.clone();
        let (mut permits, holder) = loop {
            if !self.may_announce(shutdown).await? {
                return Ok(());
            }
            tokio::select! {
                () = instance.confirmation() => {}
                // Which may wait for what it has.
                () = self.producers.failure() => {
                    self.replace_failed().await?;
                    continue;
                }
            }
            let permits = self.permits(count).await?;
            // Both may have waited for as long as Kafka was away, and a pause begun meanwhile.
            if let Some(holder) = self.instance.confirmed().filter(|_| !instance.may_be_paused()) {
                break (permits, holder);
            }
        };
        let producers = &mut self.producers;
        self.status.busy_now(|| {
            fail_point!("publisher::before_send", |_| std::process::abort());
            for message in batch {
                let permit = permits.split(1).expect("one was acquired for each message");
                if message.queued.holder == holder {
                    producers.send(message, permit);
                }
            }
            fail_point!("publisher::handed_over", |_| std::process::abort());
        });
        Ok(())
    }

    /// What a producer that has failed for good holds comes back, with its permits, when it is replaced.
    async fn permits(&mut self, count: u32) -> anyhow::Result<Permit> {
        let flight = self.flight.clone();
        let mut permits = pin!(flight.begin(count));
        loop {
            tokio::select! {
                permits = &mut permits => return Ok(permits),
                () = self.producers.failure() => self.replace_failed().await?,
            }
        }
    }

    /// A message came back.
    fn take_back(&mut self, returned: Returned) -> anyhow::Result<()> {
        let Returned { mut message, why, due } = returned;
        match why {
            // Of a batch that was rejected one message is to blame: alone it shows which.
            Verdict::Rejected(_) => message.alone = true,
            Verdict::Outage(code) => {
                if self.status.waiting(code) {
                    let advice = (code == RDKafkaErrorCode::InvalidTimestamp).then_some(CLOCKS);
                    tracing::warn!(error = %code, advice, "kafka takes nothing; messages are taken, and wait");
                }
                self.reach.refused();
                self.outage.goes_on();
            }
            Verdict::Nowhere => {}
            Verdict::Fatal(error) => {
                self.outage.goes_on();
                self.producers.rebuild(&error)?;
            }
        }
        self.waiting.push(due.unwrap_or_else(Instant::now), message);
        Ok(())
    }

    /// The queue is closed: what is in flight lands, and of a batch that was rejected each message
    /// gets its attempt alone. Everything else stays in the table for whoever comes next.
    async fn drain(mut self, shutdown: &Shutdown) -> anyhow::Result<()> {
        loop {
            let flight = self.flight.clone();
            tokio::select! {
                biased;
                Some(returned) = self.returned.recv() => {
                    if let Returned { mut message, why: Verdict::Rejected(_), due: None } = returned {
                        message.alone = true;
                        self.hand_over(vec![message], shutdown).await?;
                    }
                }
                () = self.producers.failure() => self.producers.rebuild(FAILED)?,
                _permit = flight.landed() => break,
            }
        }
        // Joins the producers' threads; the marks end when the last of them is gone.
        tokio::task::spawn_blocking(move || drop(self.producers)).await?;
        Ok(())
    }
}

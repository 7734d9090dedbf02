//! The reading task: polls Kafka, collects a batch, hands it over when counting can take it.
//!
//! It polls through any outage of the database. Once a full batch has waited for a while, the
//! partitions are paused, so that polling goes on without bringing more; until then they are not,
//! because a pause throws away what was fetched ahead.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
};
use shared::runtime::{
    health::TaskStatus,
    kafka::{self, topics::Away},
    lifecycle::Shutdown,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Settings,
    batch::Batch,
    group::{Group, Membership},
};
use crate::{pause, place::Partition};

/// How long a full batch waits before the partitions are paused, and how often what Kafka refused
/// is told again. Not polling for as long only delays a rebalance.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After this long without a sign the broker takes a member for dead: the partitions of a killed
/// instance are read again then. So are all after an outage of the broker that is longer: the member
/// has joined anew, and its former self is waited for. No shorter, for brokers refuse less unless told
/// otherwise.
pub const SESSION: Duration = Duration::from_secs(6);
/// How long a partition may take to go to where its reading begins. Only a thread of the client is asked.
const SEEK_WITHIN: Duration = Duration::from_secs(1);
/// Before it is tried again: the client has to learn of a partition first.
const SEEK_AGAIN: Duration = Duration::from_millis(50);
/// A partition that is refused for this long will never begin: librdkafka forgets a partition when the coordinator
/// answers its question where the group left off with an error, as one does that moves to another broker. Joining anew
/// begins again; where that does not help either it is waited longer each time, for it stops what the member reads.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
const BEGINS_WITHIN_AT_MOST: Duration = Duration::from_mins(5);
/// The client tells of itself so often, whatever else happens.
const STATISTICS_EVERY: Duration = Duration::from_secs(5);
/// A client that has told nothing for so long, although it was asked, is stuck: a rebalance may wait in it that nobody
/// will serve any more, and the others of the group wait for that. Longer than a session, by which they wait anyway.
const SILENT_FOR: Duration = Duration::from_secs(15);
/// Of the time between two questions at most so much counts: the process may have been stopped meanwhile.
const QUESTIONS_WITHIN: Duration = Duration::from_secs(2);
/// Events served in one go.
const EVENTS_AT_ONCE: u32 = 10_000;
/// While a topic is away.
const AWAY: &str = "a topic is missing, or this service may not use it: the component topics says which";
/// While it is not known for so long where the reading of a partition begins, that is told.
const HELD_FOR: Duration = Duration::from_secs(2);
const HELD: &str = "it is not known where reading begins: the component continuity says why";
const REFUSED: &str = "the client does not begin to read what it was assigned; it will join the group anew";
/// How long the last offsets and the leave may take. Without either nothing is lost: what was counted
/// is delivered again and recognised. But a join that waits for a dead member holds both up on the
/// connection, and who has gone without leaving is waited for after that, for another session.
const LEAVE_WITHIN: Duration = SESSION.saturating_add(Duration::from_secs(1));

/// A membership of the consumer group. Ending one blocks, for as long as the broker likes; so it
/// ends on a thread of its own, which no exit waits for.
pub struct Member {
    consumer: Option<BaseConsumer<Membership>>,
    kafka: kafka::Settings,
    settings: Settings,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Member")
    }
}

pub(super) fn client(kafka: &kafka::Settings, settings: &Settings) -> ClientConfig {
    kafka.client(&[
        ("group.id", &settings.group_id),
        // One instance more or less stops only the partitions that move.
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("session.timeout.ms", &SESSION.as_millis().to_string()),
        ("heartbeat.interval.ms", "1000"),
        // Offsets follow the database, never the reading.
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        // Memory: 4 MB fetched ahead are some 10,000 messages, two batches, and as many on the way.
        // librdkafka needs about three times the size of small messages.
        ("queued.max.messages.kbytes", "4096"),
        ("queued.min.messages", "10000"),
        ("fetch.max.bytes", &kafka.fetch_max_bytes(2_097_152)),
        // With a queue that short the default of a second would be felt at once.
        ("fetch.queue.backoff.ms", "5"),
        // How it is known that nothing is left to be read, and whether a quota makes requests wait.
        ("statistics.interval.ms", &STATISTICS_EVERY.as_millis().to_string()),
    ])
}

impl Member {
    /// Joins the group, in the background: neither broker nor topics have to be there.
    ///
    /// # Errors
    /// librdkafka refuses a setting.
    pub fn join(kafka: &kafka::Settings, settings: &Settings, group: &Arc<Group>) -> anyhow::Result<Self> {
        let membership = group.membership(kafka::Credentials::new(kafka));
        let config = client(kafka, settings);
        let mut consumer = BaseConsumer::from_config_and_context(&config, membership).context("kafka.properties")?;
        let waking = Arc::clone(group);
        consumer.set_nonempty_callback(move || waking.wake.notify_one());
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).context("kafka.topics")?;
        Ok(Self { consumer: Some(consumer), kafka: kafka.clone(), settings: settings.clone() })
    }

    fn consumer(&self) -> &BaseConsumer<Membership> {
        self.consumer.as_ref().expect("only the end takes it")
    }

    fn group(&self) -> &Arc<Group> {
        self.consumer().context().group()
    }

    /// Commits what is still owed and leaves the group.
    async fn leave(mut self) {
        let Some(consumer) = self.consumer.take() else {
            return;
        };
        let (left, leaving) = oneshot::channel();
        std::thread::spawn(move || {
            consumer.context().group().retry_all();
            consumer.context().group().commit_offsets(&consumer, CommitMode::Sync);
            drop(consumer);
            // An error says that nobody waits any more.
            let (Ok(()) | Err(())) = left.send(());
        });
        if timeout(LEAVE_WITHIN, leaving).await.is_err() {
            tracing::warn!("kafka did not confirm the last offsets in time");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            std::thread::spawn(move || drop(consumer));
        }
    }
}

/// Reads until the drain begins, then waits until what was read is counted, and leaves the group.
///
/// # Errors
/// The client is beyond repair, or counting has ended before.
pub async fn read(
    member: Member,
    settings: Settings,
    batches: mpsc::Sender<Batch>,
    mut pause: pause::IsPaused,
    shutdown: Shutdown,
    away: Away,
    status: TaskStatus,
) -> anyhow::Result<()> {
    let group = Arc::clone(member.group());
    let max_messages = usize::try_from(settings.batch_max_messages).context("batch_max_messages")?;
    let batch = Batch::default();
    let mut reading = Reading {
        member,
        status,
        away,
        was_away: false,
        held_since: None,
        was_held: false,
        refused_since: None,
        begins_within: BEGINS_WITHIN,
        silence: Silence::default(),
        batch,
        max_messages,
        paused: false,
        rests: false,
    };
    let mut handed_over: Option<Instant> = None;
    let mut looks_at = Instant::now() + LOOK_EVERY;
    while !shutdown.is_draining() {
        let status = reading.status.clone();
        let seen = *pause.borrow_and_update();
        let rests = seen != Some(false);
        let (all_begun, full) = status.busy_now(|| {
            reading.renew()?;
            let all_begun = reading.begin()?;
            reading.take()?;
            group.commit_offsets(reading.member.consumer(), CommitMode::Async);
            let full = reading.batch.is_full(max_messages);
            // By an operator, or not known yet: the partitions rest, and what is in hand stays there.
            if seen == Some(true) {
                reading.status.waiting("counting is paused by an operator");
            }
            reading.rest(rests, full)?;
            anyhow::Ok((all_begun, full))
        })?;
        // Where nothing is being counted what is there goes at once. Else the batch fills until that is done, and
        // waits behind it from `batch_max_wait` on.
        let due = handed_over.map_or_else(Instant::now, |last| last + settings.batch_max_wait);
        let waits = !reading.batch.messages.is_empty();
        let is_alone = group.fetching.under_way() == reading.batch.messages.len();
        let is_due = waits && !rests && (full || is_alone || due <= Instant::now());
        tokio::select! {
            permit = batches.reserve(), if is_due => {
                fail::fail_point!("consumer::batch_read", |_| std::process::abort());
                permit.context("counting has ended")?.send(std::mem::take(&mut reading.batch));
                handed_over = Some(Instant::now());
                reading.resume()?;
            }
            () = sleep_until(due), if waits && !rests && !is_due => {}
            // An error says that the process ends.
            Ok(()) = pause.changed() => {}
            () = group.wake.notified(), if !full || reading.paused => {}
            () = sleep(SEEK_AGAIN), if !all_begun => {}
            // However often something else comes: a full batch that waits must not keep the client from being asked.
            () = sleep_until(looks_at) => {
                looks_at = Instant::now() + LOOK_EVERY;
                group.retry_refused();
                if full {
                    reading.pause()?;
                }
            }
            () = shutdown.drain_begun() => {}
        }
    }
    let Reading { member, batch: last, .. } = reading;
    // Where counting is paused Kafka has them for whoever resumes.
    if !last.messages.is_empty() && *pause.borrow() == Some(false) {
        // Refused where counting has given up because of an outage: Kafka still has it.
        drop(batches.send(last).await);
    }
    drop(batches);
    group.counting_ended().await;
    member.leave().await;
    Ok(())
}

/// For how long the client has been asked without telling anything.
#[derive(Debug)]
struct Silence {
    lasts: Duration,
    asked_at: Instant,
    /// How many events it had told of by then.
    served: u64,
}

impl Default for Silence {
    fn default() -> Self {
        Self { lasts: Duration::ZERO, asked_at: Instant::now(), served: 0 }
    }
}

impl Silence {
    fn asked(&mut self, served: u64) {
        let passed = std::mem::replace(&mut self.asked_at, Instant::now()).elapsed();
        let is_silent = std::mem::replace(&mut self.served, served) == served;
        self.lasts = if is_silent { self.lasts + passed.min(QUESTIONS_WITHIN) } else { Duration::ZERO };
    }
}

struct Reading {
    member: Member,
    status: TaskStatus,
    /// A topic that is gone is read no more, whatever comes of the others.
    away: Away,
    was_away: bool,
    /// Since when some partition is held.
    held_since: Option<Instant>,
    was_held: bool,
    /// Since when the client refuses to begin with some partition.
    refused_since: Option<Instant>,
    begins_within: Duration,
    silence: Silence,
    batch: Batch,
    max_messages: usize,
    paused: bool,
    /// Counting is paused by an operator.
    rests: bool,
}

impl Reading {
    /// Joins anew where the secrets in files have changed and a broker refuses the old ones, or where the client does not
    /// begin with what it was assigned. What is in hand is counted all the same, as where partitions move to another member.
    fn renew(&mut self) -> anyhow::Result<()> {
        if self.member.consumer().context().credentials.are_outdated() {
            tracing::info!(
                "the secrets in files have changed, and a broker refuses the old ones: joining the group anew"
            );
        } else if self.refused_since.is_some_and(|since| since.elapsed() >= self.begins_within) {
            tracing::warn!("the client does not begin to read what it was assigned: joining the group anew");
            self.begins_within = (2 * self.begins_within).min(BEGINS_WITHIN_AT_MOST);
        } else if self.silence.lasts >= SILENT_FOR {
            tracing::warn!("the client tells nothing any more: joining the group anew");
        } else {
            return Ok(());
        }
        let Member { kafka, settings, .. } = &self.member;
        self.member = Member::join(kafka, settings, self.member.group())?;
        self.refused_since = None;
        self.silence = Silence::default();
        Ok(())
    }

    /// Begins with the held partitions of which it is known by now where. False where the client is not ready to.
    fn begin(&mut self) -> anyhow::Result<bool> {
        let consumer = self.member.consumer();
        let mut begun = TopicPartitionList::new();
        let all = self.member.group().begin_all(|Partition { topic, number }, offset| {
            let went = consumer.seek(topic, *number, Offset::Offset(offset), SEEK_WITHIN);
            match &went {
                Ok(()) => drop(begun.add_partition(topic, *number)),
                Err(error) => tracing::debug!(error = %error, "reading does not begin yet"),
            }
            went.is_ok()
        });
        if !self.paused && begun.count() > 0 {
            consumer.resume(&begun).context("kafka does not resume")?;
        }
        self.refused_since = (!all).then(|| self.refused_since.unwrap_or_else(Instant::now));
        if all && begun.count() > 0 {
            self.begins_within = BEGINS_WITHIN;
        }
        Ok(all)
    }

    /// Takes what is there. While paused that is only what was on its way, or comes from partitions
    /// assigned since; it is kept, for Kafka takes it as read.
    fn take(&mut self) -> anyhow::Result<()> {
        let group = self.member.group();
        self.silence.asked(group.served());
        fail::fail_point!("consumer::unserved", self.member.consumer().context().is_the_first(), |_| Ok(()));
        let before = self.batch.messages.len();
        // Bounded, so that a flood of events leaves time for the rest.
        let mut events = 0;
        while (self.paused || !self.batch.is_full(self.max_messages)) && events < EVENTS_AT_ONCE {
            let served = group.served();
            match self.member.consumer().poll(Duration::ZERO) {
                Some(Ok(message)) => self.batch.push(&message, group),
                Some(Err(error)) => self.outage(&error)?,
                // Not the end of the queue but an event: a rebalance may stand behind it, which nobody else
                // serves, and which librdkafka waits for.
                None if group.served() != served => events += 1,
                None => break,
            }
        }
        if events == EVENTS_AT_ONCE {
            group.wake.notify_one();
        }
        let came = self.batch.messages.len() > before;
        group.fetching.handed_out(self.batch.counts(before..self.batch.messages.len()));
        if came {
            group.failure.forget();
            self.silence = Silence::default();
        }
        // Messages may come again before it is seen that the topic is back.
        let was_away = std::mem::replace(&mut self.was_away, self.away.any());
        // An assignment alone is no success: nobody has said yet that the partitions may be read.
        let begun = group.take_begun();
        self.held_since = group.holds_any().then(|| self.held_since.unwrap_or_else(Instant::now));
        let is_held = self.held_since.is_some_and(|since| since.elapsed() >= HELD_FOR);
        let was_held = std::mem::replace(&mut self.was_held, is_held);
        if self.was_away {
            self.status.waiting(AWAY);
        } else if is_held {
            self.status.waiting(if self.refused_since.is_some() { REFUSED } else { HELD });
        } else if came || was_away || was_held || begun {
            self.status.ok();
        }
        if self.paused && came { self.pause() } else { Ok(()) }
    }

    /// Whatever Kafka complains about may be cured from outside: librdkafka goes on trying.
    fn outage(&self, error: &KafkaError) -> anyhow::Result<()> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            bail!("the kafka client is beyond repair: {code}");
        }
        let reason = self.member.group().failure.explain(error);
        self.member.consumer().context().credentials.note(error, &reason);
        self.status.failing(&reason, "waiting for kafka");
        Ok(())
    }

    fn pause(&mut self) -> anyhow::Result<()> {
        self.paused = true;
        let consumer = self.member.consumer();
        consumer.pause(&consumer.assignment()?).context("kafka does not pause")
    }

    /// While an operator has paused counting the partitions are; the group keeps this member.
    fn rest(&mut self, rests: bool, full: bool) -> anyhow::Result<()> {
        match (self.rests, rests) {
            (false, true) => {
                self.rests = true;
                self.pause()
            }
            (true, false) => {
                self.rests = false;
                self.status.ok();
                // A full batch goes to counting first.
                if full { Ok(()) } else { self.resume() }
            }
            (false, false) | (true, true) => Ok(()),
        }
    }

    fn resume(&mut self) -> anyhow::Result<()> {
        if !std::mem::take(&mut self.paused) {
            return Ok(());
        }
        let consumer = self.member.consumer();
        let mut begun = TopicPartitionList::new();
        for element in consumer.assignment()?.elements() {
            let partition = Partition::new(element.topic(), element.partition());
            if self.member.group().is_read(&partition) {
                begun.add_partition(&partition.topic, partition.number);
            }
        }
        consumer.resume(&begun).context("kafka does not resume")
    }
}

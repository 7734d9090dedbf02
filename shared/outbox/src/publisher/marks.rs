//! The broker's answers become facts in the table. Only with its fact committed does a message give
//! its room back; until then it is in flight, whatever the broker said.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use fail::fail_point;
use opentelemetry::trace::SpanKind;
use shared::runtime::{
    database::{self, Pool},
    health::TaskStatus,
    traces,
};
use sqlx::PgConnection;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{BrokerAnswer, Outgoing, Returned, Verdict, answer::Acknowledged, backoff};
use crate::{
    flight::Permit,
    instance::Instance,
    instance_id::InstanceId,
    log::Log,
    metrics::{MARK_DURATION, PUBLISH_DURATION, PUBLISHED, REJECTED, RETURNED},
    queue::{Origin, Queued, Source},
    settings,
    tables::{self, AfterRejection, Published, Rejected, SettledTo},
};

/// Answers of one statement.
const BATCH: usize = 2000;
/// A statement without an answer after this long is repeated, which is harmless, unless the server is still at it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long nothing has to come before it is stated how far a log is settled without it.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// The background task that marks.
#[derive(Debug)]
pub struct Marks {
    pool: Pool,
    answers: mpsc::UnboundedReceiver<BrokerAnswer>,
    returned: mpsc::UnboundedSender<Returned>,
    settings: settings::PublisherSettings,
    instance: Instance,
    /// Those of which messages came.
    logs: BTreeMap<InstanceId, Weak<Log>>,
    /// Half of the queue: the most that may wait in memory for a back-off.
    may_wait: Arc<Semaphore>,
    status: TaskStatus,
}

/// What is to be committed with acknowledgements.
#[derive(Default)]
struct Settled {
    /// And how many of each.
    logs: Vec<(Arc<Log>, usize)>,
    words: Vec<(Arc<Log>, SettledTo)>,
}

/// A message the broker refused while it was alone, and what becomes of it.
struct Blamed {
    outgoing: Outgoing,
    permit: Permit,
    rejected: Rejected,
    /// When it is tried again, and whether from memory.
    due: Instant,
    stays: bool,
}

/// A message that the broker has taken. It is in flight until its mark is committed.
#[derive(Debug)]
struct Delivery {
    message: Outgoing,
    _permit: Permit,
    acknowledged: Acknowledged,
}

impl Marks {
    #[must_use]
    pub fn new(
        pool: Pool,
        answers: mpsc::UnboundedReceiver<BrokerAnswer>,
        returned: mpsc::UnboundedSender<Returned>,
        settings: settings::PublisherSettings,
        instance: Instance,
        status: TaskStatus,
    ) -> Self {
        let may_wait = Arc::new(Semaphore::new(settings.queue_capacity.div_ceil(2) as usize));
        Self { pool, answers, returned, settings, instance, logs: BTreeMap::new(), may_wait, status }
    }

    /// Marks until the publisher and its producers are gone.
    ///
    /// # Errors
    /// None: a mark is repeated until it is committed.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut answers = Vec::with_capacity(BATCH);
        loop {
            match timeout(IDLE_AFTER, self.answers.recv_many(&mut answers, BATCH)).await {
                Ok(0) => break,
                Ok(_) => self.mark(answers.drain(..)).await,
                Err(_) => self.state_what_is_settled().await,
            }
        }
        self.state_what_is_settled().await;
        Ok(())
    }

    async fn mark(&mut self, answers: impl Iterator<Item = BrokerAnswer>) {
        let (mut delivered, mut blamed) = (Vec::new(), Vec::new());
        for BrokerAnswer { message, permit, result } in answers {
            match result {
                Ok(acknowledged) => delivered.push(Delivery { message, _permit: permit, acknowledged }),
                Err(Verdict::Rejected(error)) if message.alone => blamed.push(self.blame(message, permit, error)),
                // Lands before it goes back.
                Err(why) => {
                    drop(permit);
                    RETURNED.add_of(why.reason(), 1);
                    self.give_back(message, why, None);
                }
            }
        }
        if !delivered.is_empty() {
            self.mark_published(delivered).await;
        }
        if !blamed.is_empty() {
            self.record_rejections(blamed).await;
        }
    }

    async fn mark_published(&mut self, delivered: Vec<Delivery>) {
        self.status.busy_now(|| {
            fail_point!("marks::delivered", |_| std::process::abort());
            for (origin, label) in [(Origin::Placed, "placed"), (Origin::Reloaded, "reloaded")] {
                let duration = PUBLISH_DURATION.of(label);
                let of_origin = delivered.iter().filter(|one| one.message.queued.origin == origin);
                of_origin.for_each(|one| duration.record(one.acknowledged.at - one.message.queued.since));
            }
            delivered.iter().for_each(|one| trace(&one.message.queued));
        });
        let published: Vec<_> = delivered.iter().map(published).collect();
        let Settled { logs, words } = self.settle(&delivered);
        let settled: Vec<_> = words.iter().map(|(_, word)| *word).collect();
        self.until_committed(Fact::Published(&published, &settled)).await;
        PUBLISHED.add(published.len() as u64);
        logs.into_iter().for_each(|(log, count)| log.committed(count));
        words.into_iter().for_each(|(log, word)| log.stated(word));
        for Delivery { message, .. } in &delivered {
            if let Source::Rebroadcast(page) = &message.queued.source {
                page.handled_one();
            }
        }
        fail_point!("marks::published", |_| std::process::abort());
        self.status.ok();
    }

    /// What is acknowledged is settled, and with the acknowledgements it is stated how far: the statement
    /// holds both or neither.
    fn settle(&mut self, delivered: &[Delivery]) -> Settled {
        let mut by_log: BTreeMap<InstanceId, (&Arc<Log>, Vec<i64>)> = BTreeMap::new();
        for Delivery { message, .. } in delivered {
            if let Source::Log(log) = &message.queued.source {
                by_log.entry(log.id).or_insert_with(|| (log, Vec::new())).1.push(message.queued.message.seq);
            }
        }
        let mut settled = Settled::default();
        // The server that was promoted may lack what was stated to the one before, of adopted logs as well.
        let is_doubted = self.instance.log().log.is_doubted();
        for (id, (log, seqs)) in by_log {
            let highest = seqs.iter().copied().max();
            log.settle_uncommitted(&seqs);
            settled.logs.push((Arc::clone(log), seqs.len()));
            settled.words.extend(log.last_word(highest).filter(|_| !is_doubted).map(|word| (Arc::clone(log), word)));
            self.logs.insert(id, Arc::downgrade(log));
        }
        settled
    }

    /// How far each log is settled is stated once more where that has changed without an acknowledgement.
    async fn state_what_is_settled(&mut self) {
        self.logs.retain(|_, log| log.strong_count() > 0);
        let own = Arc::clone(&self.instance.log().log);
        let logs =
            self.logs.values().filter_map(Weak::upgrade).filter(|log| log.id != own.id).chain([Arc::clone(&own)]);
        let words: Vec<_> = logs.filter_map(|log| log.unstated_word().map(|word| (log, word))).collect();
        if words.is_empty() || own.is_doubted() {
            return;
        }
        let settled: Vec<_> = words.iter().map(|(_, word)| *word).collect();
        // Not repeated: it comes again a second later.
        if self.once(Fact::Published(&[], &settled)).await.is_ok() {
            words.into_iter().for_each(|(log, word)| log.stated(word));
        }
    }

    /// One more failure of a message that was alone: it waits in memory where there is room for it,
    /// in the table where there is not, and at the threshold it has failed.
    fn blame(&self, mut outgoing: Outgoing, permit: Permit, error: String) -> Blamed {
        let message = &mut outgoing.queued.message;
        message.failures = message.failures.saturating_add(1);
        let failures = u32::try_from(message.failures).unwrap_or(u32::MAX);
        let pause = backoff::pause(self.settings.backoff_initial, self.settings.backoff_max, failures);
        let message = message.clone();
        let (next, stays) = if failures >= self.settings.max_failures {
            (AfterRejection::Failed, false)
        } else if let Ok(share) = Arc::clone(&self.may_wait).try_acquire_owned() {
            outgoing.waiting = Some(share);
            (AfterRejection::Waits, true)
        } else if matches!(outgoing.queued.source, Source::Log(_)) {
            (AfterRejection::Waits, false)
        } else {
            (AfterRejection::WaitsForHolder(pause), false)
        };
        let rejected = Rejected { message, error, next };
        Blamed { outgoing, permit, rejected, due: Instant::now() + pause, stays }
    }

    async fn record_rejections(&mut self, blamed: Vec<Blamed>) {
        fail_point!("marks::rejected", |_| std::process::abort());
        let mut by_holder: BTreeMap<InstanceId, Vec<Blamed>> = BTreeMap::new();
        for one in blamed {
            REJECTED.add_of(label(&one), 1);
            if one.rejected.next == AfterRejection::Failed {
                tracing::error!(message_ref = %one.rejected.message.message_ref, failures = one.rejected.message.failures,
                    error = one.rejected.error, "message failed: it stays in the outbox until it is retried");
            }
            by_holder.entry(one.outgoing.queued.holder).or_default().push(one);
        }
        for (holder, blamed) in by_holder {
            let rejected: Vec<_> = blamed.iter().map(|one| one.rejected.clone()).collect();
            let retries: Vec<_> =
                blamed.iter().map(|one| !matches!(one.outgoing.queued.source, Source::Log(_))).collect();
            let is_recorded = self.until_committed(Fact::Rejections(holder, Uuid::now_v7(), &rejected, &retries)).await;
            fail_point!("marks::rejections_recorded", |_| std::process::abort());
            if is_recorded {
                blamed.into_iter().for_each(|one| self.after_rejection(one));
            }
        }
    }

    /// The rejection is recorded.
    fn after_rejection(&self, blamed: Blamed) {
        let Blamed { mut outgoing, permit, rejected, due, stays } = blamed;
        drop(permit);
        match &outgoing.queued.source {
            Source::Log(log) if rejected.next == AfterRejection::Failed => log.settle([rejected.message.seq]),
            Source::Log(log) if !stays => log.read_apart(rejected.message.seq, due),
            Source::Rebroadcast(page) => {
                // From now on it is sent like any other that was refused.
                page.handled_one();
                outgoing.queued.source = Source::Retry;
            }
            Source::Log(_) | Source::Retry => {}
        }
        if stays {
            self.give_back(outgoing, Verdict::Rejected(rejected.error), Some(due));
        }
    }

    fn give_back(&self, message: Outgoing, why: Verdict, due: Option<Instant>) {
        // Closed only when the publisher is gone: the row stays as it is in the table.
        drop(self.returned.send(Returned { message, why, due }));
    }

    async fn until_committed(&self, fact: Fact<'_>) -> bool {
        let begin = Instant::now();
        let (mut pauses, mut is_told) = (database::backoff(), false);
        loop {
            match self.once(fact).await {
                Ok(answer) => {
                    MARK_DURATION.record(begin.elapsed().as_secs_f64());
                    return answer;
                }
                // No outage: it lasts until somebody gives a privilege back.
                Err(error) if database::is_forbidden(&error) => {
                    self.status.waiting(&error);
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::error!(error = %error, "cannot mark messages; trying again");
                    }
                }
                Err(error) => self.status.failing(&error, "cannot mark messages; trying again"),
            }
            sleep(pauses.next().expect("the back-off never ends")).await;
        }
    }

    async fn once(&self, fact: Fact<'_>) -> Result<bool, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let backend = connection.backend();
        let marking = async {
            let answer = fact.state(&mut connection).await?;
            fail_point!("marks::answer_lost", |_| Err(sqlx::Error::PoolTimedOut));
            Ok::<_, sqlx::Error>(answer)
        };
        let answer = self.pool.until_answered(&self.status, ANSWER_WITHIN, backend, marking).await;
        connection.end_with(&answer);
        answer
    }
}

/// What is stated in one transaction; twice it is no other.
#[derive(Clone, Copy, Debug)]
enum Fact<'a> {
    Published(&'a [Published], &'a [SettledTo]),
    /// By a holder, by which number they are known when they are said again, and which of them are retries.
    Rejections(InstanceId, Uuid, &'a [Rejected], &'a [bool]),
}

impl Fact<'_> {
    /// False where it is not this process's to state any more.
    async fn state(self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        match self {
            Self::Published(published, settled) => {
                tables::mark_published(connection, published, settled).await.map(|()| true)
            }
            Self::Rejections(holder, record, rejected, retries) => {
                tables::record_rejections(connection, holder, record, rejected, retries).await
            }
        }
    }
}

fn published(delivery: &Delivery) -> Published {
    let Delivery { message: Outgoing { queued, .. }, acknowledged, .. } = delivery;
    let message = &queued.message;
    Published {
        message_ref: message.message_ref,
        log: message.log,
        seq: message.seq,
        partition: acknowledged.partition,
        offset: acknowledged.offset,
        was_refused: message.failures > 0 || matches!(queued.source, Source::Retry),
    }
}

/// Under which a rejection is counted.
fn label(blamed: &Blamed) -> &'static str {
    match blamed.rejected.next {
        AfterRejection::Failed => "failed",
        AfterRejection::Waits if blamed.stays => "waits",
        AfterRejection::Waits | AfterRejection::WaitsForHolder(_) => "waits in the table",
    }
}

/// The span of a message's sending, from memory to the broker.
fn trace(queued: &Queued) {
    let began = SystemTime::now() - queued.since.elapsed();
    traces::message("publish", SpanKind::Producer, began, &[], || queued.message.trace.clone());
}

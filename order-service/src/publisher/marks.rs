//! The broker's answers become marks in the table. Only with its mark committed does a message give
//! its room back; until then it is in flight, whatever the broker said.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fail::fail_point;
use opentelemetry::trace::SpanKind;
use shared::{
    database,
    health::Component,
    traces::{self, TraceContext},
};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};

use super::{Answer, Outgoing, Returned, Verdict, backoff};
use crate::{
    config,
    flight::Permit,
    instance::InstanceId,
    metrics::{LOST_TO_OTHERS, MARK_DURATION, PUBLISH_DURATION, PUBLISHED, REJECTED, RETURNED},
    outbox::{self, Fate, Published, Rejected},
    queue::{Origin, Queued},
};

/// Answers of one statement: an update of 1,000 rows takes some 10 ms.
const BATCH: usize = 2000;

/// The background task that marks.
#[derive(Debug)]
pub struct Marks {
    pool: PgPool,
    answers: mpsc::UnboundedReceiver<Answer>,
    returned: mpsc::UnboundedSender<Returned>,
    settings: config::Publisher,
    /// Half of the queue: the most that may wait in memory for a back-off.
    may_wait: Arc<Semaphore>,
    page: Component,
}

/// A message the broker refused while it was alone, and what becomes of it.
struct Blamed {
    message: Outgoing,
    permit: Permit,
    rejected: Rejected,
    due: Instant,
}

impl Marks {
    #[must_use]
    pub fn new(
        pool: PgPool,
        answers: mpsc::UnboundedReceiver<Answer>,
        returned: mpsc::UnboundedSender<Returned>,
        settings: config::Publisher,
        page: Component,
    ) -> Self {
        let may_wait = Arc::new(Semaphore::new(settings.queue_capacity.div_ceil(2) as usize));
        Self { pool, answers, returned, settings, may_wait, page }
    }

    /// Marks until the publisher and its producers are gone.
    ///
    /// # Errors
    /// None: a mark is repeated until it is committed.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let mut answers = Vec::with_capacity(BATCH);
        while self.answers.recv_many(&mut answers, BATCH).await > 0 {
            let _work = self.page.work();
            self.mark(answers.drain(..)).await;
        }
        Ok(())
    }

    async fn mark(&mut self, answers: impl Iterator<Item = Answer>) {
        let (mut delivered, mut blamed) = (Vec::new(), Vec::new());
        for Answer { message, permit, result } in answers {
            match result {
                Ok(place) => delivered.push((message, permit, place)),
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

    async fn mark_published(&self, delivered: Vec<(Outgoing, Permit, super::answer::Place)>) {
        fail_point!("marks::delivered", |_| std::process::abort());
        let mut by_owner: BTreeMap<i64, Vec<Published>> = BTreeMap::new();
        for (message, _, place) in &delivered {
            let published = Published {
                message_ref: message.queued.message.message_ref,
                partition: place.partition,
                offset: place.offset,
            };
            by_owner.entry(message.queued.owner.number()).or_default().push(published);
        }
        for (origin, label) in [(Origin::Placed, "placed"), (Origin::Claimed, "claimed")] {
            let duration = PUBLISH_DURATION.of(label);
            let of_origin = delivered.iter().filter(|(message, ..)| message.queued.origin == origin);
            of_origin.for_each(|(message, _, place)| duration.record(place.at - message.queued.since));
        }
        delivered.iter().for_each(|(message, ..)| trace(&message.queued));
        for (owner, published) in by_owner {
            let owner = InstanceId::from(owner);
            let marked = self.until_committed(|| outbox::mark_published(&self.pool, owner, &published)).await;
            PUBLISHED.add(marked.0);
            expect_all(marked, published.len());
        }
        fail_point!("marks::published", |_| std::process::abort());
        self.page.working();
    }

    /// One more failure of a message that was alone: it waits in memory where there is room for it,
    /// in the table where there is not, and at the threshold it has failed.
    fn blame(&self, mut message: Outgoing, permit: Permit, error: String) -> Blamed {
        let one = &mut message.queued.message;
        one.failures = one.failures.saturating_add(1);
        let failures = u32::try_from(one.failures).unwrap_or(u32::MAX);
        let pause = backoff::pause(self.settings.backoff_initial, self.settings.backoff_max, failures);
        let fate = if failures >= self.settings.max_failures {
            Fate::Failed
        } else if let Ok(share) = Arc::clone(&self.may_wait).try_acquire_owned() {
            message.waiting = Some(share);
            Fate::Waits
        } else {
            Fate::WaitsInTable(OffsetDateTime::now_utc() + pause)
        };
        let one = &message.queued.message;
        let rejected = Rejected { message_ref: one.message_ref, failures: one.failures, error, fate };
        Blamed { message, permit, rejected, due: Instant::now() + pause }
    }

    async fn record_rejections(&self, blamed: Vec<Blamed>) {
        fail_point!("marks::rejected", |_| std::process::abort());
        let mut by_owner: BTreeMap<i64, Vec<Rejected>> = BTreeMap::new();
        for Blamed { message, rejected, .. } in &blamed {
            REJECTED.add_of(rejected.fate.label(), 1);
            if rejected.fate == Fate::Failed {
                tracing::error!(message_ref = %rejected.message_ref, failures = rejected.failures, error = rejected.error,
                    "message failed: it stays in the outbox until it is retried");
            }
            by_owner.entry(message.queued.owner.number()).or_default().push(rejected.clone());
        }
        for (owner, rejected) in by_owner {
            let owner = InstanceId::from(owner);
            let recorded = self.until_committed(|| outbox::record_rejections(&self.pool, owner, &rejected)).await;
            expect_all(recorded, rejected.len());
        }
        fail_point!("marks::rejections_recorded", |_| std::process::abort());
        for Blamed { message, permit, rejected, due } in blamed {
            drop(permit);
            if rejected.fate == Fate::Waits {
                self.give_back(message, Verdict::Rejected(rejected.error), Some(due));
            }
        }
    }

    fn give_back(&self, message: Outgoing, why: Verdict, due: Option<Instant>) {
        // Closed only when the publisher is gone: the row stays as it is in the table.
        drop(self.returned.send(Returned { message, why, due }));
    }

    /// How many rows it touched, and whether it had to be repeated.
    async fn until_committed<F>(&self, statement: impl Fn() -> F) -> (u64, bool)
    where
        F: Future<Output = Result<u64, sqlx::Error>>,
    {
        let begin = Instant::now();
        let mut repeated = false;
        let mut pauses = database::backoff();
        loop {
            let _work = self.page.work();
            let marking = async {
                let rows = statement().await?;
                fail_point!("marks::answer_lost", |_| Err(sqlx::Error::PoolTimedOut));
                Ok(rows)
            };
            match database::within(ANSWER_WITHIN, marking).await {
                Ok(rows) => {
                    MARK_DURATION.record(begin.elapsed().as_secs_f64());
                    return (rows, repeated);
                }
                Err(error) => {
                    if self.page.waiting(&error) {
                        tracing::warn!(error = %error, "cannot mark messages; trying again");
                    }
                }
            }
            repeated = true;
            sleep(pauses.next().expect("the back-off never ends")).await;
        }
    }
}

/// The span of a message's sending, from memory to the broker.
fn trace(queued: &Queued) {
    traces::message("publish", SpanKind::Producer, SystemTime::now() - queued.since.elapsed(), &[], || {
        let header =
            |wanted| queued.message.headers().find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned());
        TraceContext::new(header("traceparent"), header("tracestate"))
    });
}

/// A statement without an answer after this long is repeated: it is harmless.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Rows this process owned are marked by nobody else. Fewer on the first attempt means that
/// somebody thinks this process is gone.
fn expect_all((marked, repeated): (u64, bool), expected: usize) {
    let expected = u64::try_from(expected).unwrap_or(u64::MAX);
    if marked != expected && !repeated {
        LOST_TO_OTHERS.add(expected.saturating_sub(marked));
        tracing::error!(expected, marked, "another instance has taken messages of this one over");
    }
}

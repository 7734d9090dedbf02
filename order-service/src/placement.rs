//! Where an order is accepted: order, lines and message in one statement, which is one transaction
//! and one round trip, for as many orders as are waiting.
//!
//! An order with a key that somebody is just placing under is given back to its handler, which comes
//! again: the wait is the handler's alone, and nothing else waits with it.

mod statement;

use std::{collections::HashSet, sync::Arc, time::Duration};

use fail::fail_point;
use outbox::{
    announcement::{Announcement, Written},
    line::{self, LineReceiver, LineSender, Reply, WorkItem},
    message::Content,
    outcome::{Earlier, Outcome, until_known},
    queue::Queue,
};
use shared::{
    at_once::AtOnce,
    database::{self, Pool},
    health::TaskStatus,
    http::DATABASE_PATIENCE,
    traces::TraceContext,
};
use statement::{PlacementResult, Statement};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::{
    config,
    idempotency::Key,
    metrics::{LINE_CAPACITY, LINE_LENGTH, NOT_PLACED, PLACED, PLACEMENT_BATCH, PLACEMENT_DURATION, REPLAYED},
    order::{NewOrder, Order, OrderRef},
};

/// How long a request waits for another one under the same key, as the contract has it.
const KEY_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts of it: more than an ordinary placement takes.
const KEY_PAUSE: Duration = Duration::from_millis(25);

/// What a caller wants.
#[derive(Clone, Debug)]
pub struct PlaceRequest {
    pub order: NewOrder,
    pub key: Option<Key>,
    pub trace: TraceContext,
}

/// What it got.
#[derive(Debug)]
pub struct Placed {
    pub order: Order,
    /// By an earlier request under the same key.
    pub replayed: bool,
}

/// Why an order was not placed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// More orders are waiting than the line holds, or the database did not answer in time. In the
    /// latter case the order may still be placed.
    #[error("orders cannot be placed now")]
    Unavailable,
    #[error("another request is being placed under the same key")]
    KeyInUse,
    #[error("the key belongs to another request")]
    KeyOfAnother,
    #[error("the database refused the order")]
    Refused(#[source] Arc<sqlx::Error>),
}

type PlaceAnswer = Result<Placed, PlaceError>;

/// The handlers' end of the line.
#[derive(Clone, Debug)]
pub struct Placement(LineSender<PlaceRequest, PlaceAnswer>);

impl Placement {
    /// Places an order.
    ///
    /// # Errors
    /// See [`PlaceError`]; within [`DATABASE_PATIENCE`].
    pub async fn place(&self, request: PlaceRequest) -> PlaceAnswer {
        let answer = self.ask(request).await;
        match &answer {
            Ok(Placed { replayed: false, .. }) => PLACED.add(1),
            Ok(Placed { replayed: true, .. }) => REPLAYED.add(1),
            Err(PlaceError::Unavailable) => NOT_PLACED.add_of("unavailable", 1),
            Err(PlaceError::KeyInUse) => NOT_PLACED.add_of("key in use", 1),
            Err(PlaceError::KeyOfAnother) => NOT_PLACED.add_of("key of another", 1),
            Err(PlaceError::Refused(_)) => NOT_PLACED.add_of("refused", 1),
        }
        answer
    }

    /// Sets the gauges of the line, each time that it is called.
    pub fn gauges(&self) -> impl Fn() + Send + Sync + use<> {
        self.0.gauges(&LINE_LENGTH, &LINE_CAPACITY)
    }

    async fn ask(&self, request: PlaceRequest) -> PlaceAnswer {
        let begun = Instant::now();
        let deadline = begun + DATABASE_PATIENCE;
        let ask = async |request| self.0.ask(request, deadline).await.unwrap_or(Err(PlaceError::Unavailable));
        if request.key.is_none() {
            return ask(request).await;
        }
        loop {
            match ask(request.clone()).await {
                Err(PlaceError::KeyInUse) if begun.elapsed() + KEY_PAUSE < KEY_PATIENCE => sleep(KEY_PAUSE).await,
                answer => return answer,
            }
        }
    }
}

/// The other end: what the placement tasks share.
#[derive(Clone, Debug)]
pub struct Placer {
    waiting: LineReceiver<PlaceRequest, PlaceAnswer>,
    pool: Pool,
    queue: Queue,
    batch_max: usize,
    at_once: Arc<AtOnce>,
    keys_kept_for: Duration,
}

/// A line, and the task at its end; run it `placement.tasks` times.
#[must_use]
pub fn line(
    settings: &config::PlacementSettings,
    keys_kept_for: Duration,
    pool: Pool,
    queue: Queue,
) -> (Placement, Placer) {
    let (sender, waiting) = line::line(settings.waiting_line, settings.batch_max_wait);
    let (batch_max, at_once) = (settings.batch_max_orders as usize, Arc::default());
    (Placement(sender), Placer { waiting, pool, queue, batch_max, at_once, keys_kept_for })
}

impl Placer {
    /// Places what is waiting until every handler is gone.
    ///
    /// # Errors
    /// None: a failure is answered to those who wait.
    pub async fn run(self, status: TaskStatus) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(self.batch_max);
        while let Some(_under_way) = self.waiting.next(&mut batch, self.batch_max.min(self.at_once.get())).await {
            let batch = self.accepted(batch.drain(..));
            let orders = batch.len();
            PLACEMENT_BATCH.record_count(orders);
            let begun = Instant::now();
            self.place(batch, Earlier::DidNothing, &status).await;
            let took = begun.elapsed();
            // Whatever it waited for, nobody has waited for its answer: with fewer orders somebody may.
            if took >= DATABASE_PATIENCE {
                self.at_once.was_too_slow(orders);
            } else {
                self.at_once.was_quick_enough(orders);
            }
            let took_seconds = took.as_secs_f64();
            PLACEMENT_DURATION.record(took_seconds);
            tracing::debug!(orders, took_seconds, "a batch of orders came to its end");
        }
        Ok(())
    }

    /// Of those under the same key only the first.
    fn accepted(&self, waiting: impl Iterator<Item = WorkItem<PlaceRequest, PlaceAnswer>>) -> Vec<Accepted> {
        let mut keys = HashSet::new();
        let mut accepted = Vec::new();
        // One log for all: the statement has one fence.
        let log = self.queue.log();
        for WorkItem { work: PlaceRequest { order, key, trace }, reply, .. } in waiting {
            if key.is_none_or(|key| keys.insert(key)) {
                let announcement = Announcement::new(trace, &log, &self.queue);
                accepted.push(Accepted { announcement, order, key, reply });
            } else {
                reply.send(Err(PlaceError::KeyInUse));
            }
        }
        accepted
    }

    /// Places a batch, and where the database refuses it each of its orders alone, so that a bad
    /// one never takes its neighbours with it.
    async fn place(&self, mut batch: Vec<Accepted>, mut earlier: Earlier, status: &TaskStatus) {
        let mut pauses = database::backoff();
        while !batch.is_empty() {
            let mut statement = Statement::of(batch, self.keys_kept_for, self.queue.clone());
            let outcome = until_known(&self.pool, &mut statement, earlier, status).await;
            batch = statement.into_batch();
            match outcome {
                Outcome::Done { done, earlier: before } => {
                    fail_point!("placement::committed", |_| std::process::abort());
                    batch = self.settle(batch, done, before);
                    earlier = before;
                    if !batch.is_empty() {
                        // Their earlier attempt may wait for a standby: less and less often.
                        sleep(pauses.next().expect("the back-off never ends")).await;
                    }
                }
                Outcome::NotSent => {
                    return batch.into_iter().for_each(|one| one.refuse(PlaceError::Unavailable));
                }
                Outcome::Refused { error, earlier } => {
                    return self.each_alone(batch, &error, earlier, status).await;
                }
            }
        }
    }

    /// What becomes of a batch that the database refused.
    async fn each_alone(&self, batch: Vec<Accepted>, error: &Arc<sqlx::Error>, earlier: Earlier, status: &TaskStatus) {
        let alone = batch.len() == 1;
        for one in batch {
            if !alone {
                Box::pin(self.place(vec![one], earlier, status)).await;
            } else if earlier == Earlier::MayHaveDone {
                // That it is refused now does not tell what became of it before.
                self.queue.instance().doubt();
                one.reply.send(Err(PlaceError::Unavailable));
            } else {
                one.refuse(PlaceError::Refused(Arc::clone(error)));
            }
        }
    }

    /// Lets the messages into the queue and answers the callers. Gives those back of whom nothing is
    /// known yet: the lock of their key may be held by their own earlier attempt.
    fn settle(&self, batch: Vec<Accepted>, results: Vec<PlacementResult>, earlier: Earlier) -> Vec<Accepted> {
        let mut unknown = Vec::new();
        for (one, result) in batch.into_iter().zip(results) {
            match result {
                PlacementResult::Placed { order_id, log, seq, placed_at } => {
                    let Accepted { announcement, order, reply, .. } = one;
                    let content = Content::Thing { number: order_id, version: 1 };
                    let written = Written { log, seq, activity_at: placed_at };
                    announcement.committed("ORDER_CREATED", content, written, &self.queue);
                    reply.send(Ok(placed(order, order_id, placed_at, false)));
                }
                // The request is the same, so this is the same answer.
                PlacementResult::Remembered { order_id, placed_at } => {
                    let Accepted { announcement, order, reply, .. } = one;
                    announcement.absent();
                    reply.send(Ok(placed(order, order_id, placed_at, true)));
                }
                PlacementResult::OfAnotherRequest => one.refuse(PlaceError::KeyOfAnother),
                PlacementResult::KeyInUse if earlier == Earlier::MayHaveDone => unknown.push(one),
                PlacementResult::KeyInUse => one.refuse(PlaceError::KeyInUse),
            }
        }
        fail_point!("placement::announced", |_| std::process::abort());
        unknown
    }
}

fn placed(order: NewOrder, order_id: i64, placed_at: OffsetDateTime, replayed: bool) -> Placed {
    Placed { order: order.placed(OrderRef::from_number(order_id), placed_at), replayed }
}

/// An order that its task works on.
#[derive(Debug)]
struct Accepted {
    announcement: Announcement,
    order: NewOrder,
    key: Option<Key>,
    reply: Reply<PlaceAnswer>,
}

impl Accepted {
    /// It was not placed, and will not be.
    fn refuse(self, why: PlaceError) {
        self.announcement.absent();
        self.reply.send(Err(why));
    }
}

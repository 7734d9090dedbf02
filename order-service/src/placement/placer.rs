//! The task's end: what is waiting becomes one statement, and what it did becomes answers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fail::fail_point;
use outbox::{
    announcement::{Announcement, Written},
    line::{LineReceiver, WorkItem},
    message::Content,
    outcome::{Earlier, Outcome, until_known},
    queue::Queue,
};
use shared::{
    runtime::{
        at_once::AtOnce,
        database::{self, Pool},
        health::TaskStatus,
    },
    web::http::DATABASE_PATIENCE,
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::{
    PlaceAnswer, PlaceError, PlaceRequest, Placed,
    accepted::Accepted,
    statement::{PlacementResult, Statement},
};
use crate::{
    cell::Cell,
    metrics::{PLACEMENT_BATCH, PLACEMENT_DURATION},
    order::{NewOrder, OrderRef},
};

/// The other end: what the placement tasks share.
#[derive(Clone, Debug)]
pub struct Placer {
    pub(super) waiting: LineReceiver<PlaceRequest, PlaceAnswer>,
    pub(super) pool: Pool,
    pub(super) queue: Queue,
    pub(super) batch_max: usize,
    pub(super) at_once: Arc<AtOnce>,
    pub(super) cell: Cell,
    pub(super) keys_kept_for: Duration,
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
            let mut statement = Statement::of(batch, (self.cell, self.keys_kept_for), self.queue.clone());
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

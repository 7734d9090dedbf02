//! Where an order is accepted: order, lines and message in one statement, which is one transaction
//! and one round trip, for as many orders as are waiting.
//!
//! A handler hands its order over and awaits the answer; what happens after that does not live in
//! the handler, which a leaving client takes down. The line of waiting orders is bounded.

mod statement;

use std::{sync::Arc, time::Instant};

use fail::fail_point;
use shared::{
    database::{Failure, backoff},
    health::Component,
    http::DATABASE_PATIENCE,
};
use sqlx::PgPool;
use statement::{Attempt, Columns};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    config,
    order::{NewOrder, Order, OrderRef},
    queue::{Queue, Slot},
    trace::TraceContext,
};

/// Why an order was not placed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// More orders are waiting than the line holds, or the database did not answer in time. In the
    /// latter case the order may still be placed.
    #[error("orders cannot be placed now")]
    Unavailable,
    #[error("the database refused the order")]
    Refused(#[source] Arc<sqlx::Error>),
}

/// The handlers' end of the line.
#[derive(Clone, Debug)]
pub struct Placement(mpsc::Sender<Waiting>);

/// An order in the line.
#[derive(Debug)]
struct Waiting {
    order: NewOrder,
    trace: TraceContext,
    since: Instant,
    reply: oneshot::Sender<Result<Order, PlaceError>>,
}

impl Placement {
    /// Places an order.
    ///
    /// # Errors
    /// See [`PlaceError`]; within [`DATABASE_PATIENCE`].
    pub async fn place(&self, order: NewOrder, trace: TraceContext) -> Result<Order, PlaceError> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { order, trace, since: Instant::now(), reply };
        self.0.try_send(waiting).map_err(|_| PlaceError::Unavailable)?;
        match timeout(DATABASE_PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            // Unknown: the placement goes on without this caller.
            Ok(Err(_)) | Err(_) => Err(PlaceError::Unavailable),
        }
    }
}

/// The other end: what the placement tasks share.
#[derive(Clone, Debug)]
pub struct Line {
    waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    pool: PgPool,
    queue: Queue,
    batch_max: usize,
}

/// A line, and the task at its end; run it `placement.tasks` times.
#[must_use]
pub fn line(settings: &config::Placement, pool: PgPool, queue: Queue) -> (Placement, Line) {
    let (sender, receiver) = mpsc::channel(settings.waiting_line as usize);
    let waiting = Arc::new(Mutex::new(receiver));
    (Placement(sender), Line { waiting, pool, queue, batch_max: settings.batch_max_orders as usize })
}

impl Line {
    /// Places what is waiting until every handler is gone.
    ///
    /// # Errors
    /// None: a failure is answered to those who wait.
    pub async fn run(self, page: Component) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(self.batch_max);
        while self.next_batch(&mut batch).await > 0 {
            let accepted: Vec<_> = batch.drain(..).filter_map(|one| Accepted::from_waiting(one, &self.queue)).collect();
            if !accepted.is_empty() {
                self.place(accepted, false, &page).await;
            }
        }
        Ok(())
    }

    /// What is waiting now, or the first that comes. Never waits for company.
    async fn next_batch(&self, batch: &mut Vec<Waiting>) -> usize {
        self.waiting.lock().await.recv_many(batch, self.batch_max).await
    }

    /// Places a batch, and where the database refuses it each of its orders alone, so that a bad
    /// one never takes its neighbours with it. `maybe_placed`: an earlier attempt is of unknown outcome.
    async fn place(&self, batch: Vec<Accepted>, maybe_placed: bool, page: &Component) {
        let Err(Refusal { batch, error, maybe_placed }) = self.place_together(batch, maybe_placed, page).await else {
            return;
        };
        let alone = batch.len() == 1;
        for one in batch {
            if !alone {
                Box::pin(self.place(vec![one], maybe_placed, page)).await;
            } else if maybe_placed {
                // That it is refused now does not tell what became of it before.
                self.queue.doubt();
                one.answer(Err(PlaceError::Unavailable));
            } else {
                one.answer(Err(PlaceError::Refused(Arc::clone(&error))));
            }
        }
    }

    /// One statement for the whole batch, repeated until its outcome is known. Gives the batch back
    /// where the database refuses it.
    async fn place_together(
        &self,
        batch: Vec<Accepted>,
        mut maybe_placed: bool,
        page: &Component,
    ) -> Result<(), Refusal> {
        let columns = Columns::of(&batch, self.queue.owner());
        for pause in backoff() {
            fail_point!("placement::before", |_| std::process::abort());
            let error = match statement::attempt(&self.pool, &columns, maybe_placed).await {
                Attempt::Placed(placed) => {
                    fail_point!("placement::committed", |_| std::process::abort());
                    page.working();
                    self.announce(batch, placed);
                    return Ok(());
                }
                Attempt::NotSent(error) => error,
                Attempt::Failed(error) => match Failure::of(&error) {
                    Failure::Refused | Failure::Defect => {
                        return Err(Refusal { batch, error: Arc::new(error), maybe_placed });
                    }
                    Failure::Conflict => continue,
                    Failure::Outage => {
                        maybe_placed = true;
                        error
                    }
                },
            };
            if page.waiting(&error) {
                tracing::warn!(error = %error, "the database does not take orders; trying again");
            }
            if !maybe_placed {
                batch.into_iter().for_each(|one| one.answer(Err(PlaceError::Unavailable)));
                return Ok(());
            }
            sleep(pause).await;
        }
        unreachable!("the back-off never ends")
    }

    /// Answers the callers and lets the messages into the queue.
    fn announce(&self, batch: Vec<Accepted>, placed: Vec<statement::Placed>) {
        for (one, placed) in batch.into_iter().zip(placed) {
            let order = one.order.placed(OrderRef::from_number(placed.order_id), placed.placed_at);
            match one.slot {
                Some(slot) => self.queue.push(placed.message, placed.owner, slot),
                None => self.queue.overflow(),
            }
            drop(one.reply.send(Ok(order)));
        }
        fail_point!("placement::announced", |_| std::process::abort());
    }
}

/// A batch that the database refused.
struct Refusal {
    batch: Vec<Accepted>,
    error: Arc<sqlx::Error>,
    maybe_placed: bool,
}

/// An order that its task works on, under the reference it keeps through every repetition.
#[derive(Debug)]
struct Accepted {
    message_ref: Uuid,
    order: NewOrder,
    trace: TraceContext,
    slot: Option<Slot>,
    reply: oneshot::Sender<Result<Order, PlaceError>>,
}

impl Accepted {
    /// None for an order whose caller was told that it could not be placed while it was waiting.
    fn from_waiting(waiting: Waiting, queue: &Queue) -> Option<Self> {
        let Waiting { order, trace, since, reply } = waiting;
        let in_time = since.elapsed() < DATABASE_PATIENCE;
        in_time.then(|| Self { message_ref: Uuid::now_v7(), order, trace, slot: queue.try_slot(), reply })
    }

    fn answer(self, answer: Result<Order, PlaceError>) {
        // A caller that has left is not told; nothing else changes.
        drop(self.reply.send(answer));
    }
}

//! Where an order is accepted: order, lines and message in one statement, which is one transaction
//! and one round trip, for as many orders as are waiting.
//!
//! An order with a key that somebody is just placing under is given back to its handler, which comes
//! again: the wait is the handler's alone, and nothing else waits with it.

mod accepted;
mod placer;
mod statement;

use std::{sync::Arc, time::Duration};

use outbox::{
    line::{self, LineSender},
    queue::Queue,
};
pub use placer::Placer;
use shared::{
    runtime::{database::Pool, traces::TraceContext},
    web::http::DATABASE_PATIENCE,
};
use tokio::time::{Instant, sleep};

use crate::{
    cell::Cell,
    config,
    idempotency::Key,
    metrics::{LINE_CAPACITY, LINE_LENGTH, NOT_PLACED, PLACED, REPLAYED},
    order::{NewOrder, Order},
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

/// A line, and the task at its end; run it `placement.tasks` times.
#[must_use]
pub fn line(
    settings: &config::PlacementSettings,
    (cell, keys_kept_for): (Cell, Duration),
    pool: Pool,
    queue: Queue,
) -> (Placement, Placer) {
    let (sender, waiting) = line::line(settings.waiting_line, settings.batch_max_wait);
    let (batch_max, at_once) = (settings.batch_max_orders as usize, Arc::default());
    (Placement(sender), Placer { waiting, pool, queue, batch_max, at_once, cell, keys_kept_for })
}

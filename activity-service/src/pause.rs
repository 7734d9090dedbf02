//! Counting is paused: messages stay on the topic, the group keeps its members. One row, read once a second.

use std::time::Duration;

use shared::{
    operators::audit::Action,
    runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown},
};
use tokio::sync::watch;

use crate::{audit, metrics::PAUSED};

shared::pause_table!(audit::record, Action::CountingPaused, Action::CountingResumed);

/// A pause is seen this much later.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After this long it is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Whether counting is paused, as reading sees it; none until the first look.
pub type IsPaused = watch::Receiver<Option<bool>>;

/// Looks once a second whether counting is paused, until the drain begins. While the database is away it stays as it was.
///
/// # Errors
/// None.
pub async fn watch(
    pool: Pool,
    seen: watch::Sender<Option<bool>>,
    shutdown: Shutdown,
    status: TaskStatus,
) -> anyhow::Result<()> {
    loop {
        match status.busy(ANSWER_WITHIN, find(&pool)).await {
            Ok(pause) => {
                status.ok();
                PAUSED.set(if pause.paused { 1.0 } else { 0.0 });
                if seen.send_replace(Some(pause.paused)).unwrap_or(false) != pause.paused {
                    tracing::warn!(is_paused = pause.paused, "whether counting is paused has changed");
                }
            }
            Err(error) => status.failing(&error, "cannot see whether counting is paused; trying again"),
        }
        if shutdown.unless_draining(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return Ok(());
        }
    }
}

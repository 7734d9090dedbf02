//! Up to when everything is announced, about once a second: how far this instance's log is settled is stated in the
//! database, and one instance at a time tells Kafka the least of all logs, see [`announcer`].
//!
//! All instances do it in the same parts of a second of the database's clock: what one has stated is told a moment
//! later, not up to a second.

pub mod announcer;
mod counting;

use std::time::Duration;

use shared::runtime::{database::Pool, health::TaskStatus};
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    instance::Instance,
    log::own::{OwnLog, SettledUntil},
};

/// How long what was under way at a full second is given to be acknowledged: longer than a placement, a send and
/// the answer take when all is well. What is not is told a second later.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);
/// A statement is given up after this long, unless the server is still at it; another one comes a second later.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The background task that states how far the log of this instance is settled in time.
#[derive(Debug)]
pub struct Progress {
    pub pool: Pool,
    pub instance: Instance,
}

impl Progress {
    /// States it until `drained`: to the last message's acknowledgement.
    ///
    /// # Errors
    /// None: what fails is tried again a second later.
    pub async fn run(self, drained: CancellationToken, status: TaskStatus) -> anyhow::Result<()> {
        let stating = async {
            let mut stated = None;
            loop {
                sleep(until(&self.instance, Duration::ZERO)).await;
                match self.state(&mut stated, &status).await {
                    Ok(()) => status.ok(),
                    Err(error) => status.failing(&error, "cannot state how far the log is settled; trying again"),
                }
            }
        };
        drained.run_until_cancelled(stating).await;
        Ok(())
    }

    async fn state(&self, stated: &mut Option<SettledUntil>, status: &TaskStatus) -> Result<(), sqlx::Error> {
        let log = self.instance.log();
        status.busy(ANSWER_WITHIN, note_clock(&self.pool, &log)).await?;
        sleep(SETTLES_WITHIN).await;
        let settled = log.settled_until();
        if let Some(settled) = settled.filter(|_| settled != *stated) {
            let mut connection = self.pool.acquire().await?;
            let backend = connection.backend();
            let stating = state(&mut connection, settled);
            let answer = self.pool.until_answered(status, ANSWER_WITHIN, backend, stating).await;
            connection.end_with(&answer);
            answer?;
            *stated = Some(settled);
        }
        Ok(())
    }
}

/// Lets a log know what time it is.
async fn note_clock(pool: &Pool, log: &OwnLog) -> Result<(), sqlx::Error> {
    let asking = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(pool);
    log.note_clock(asking.await?);
    Ok(())
}

/// A fact, true for ever: stating it twice is harmless.
async fn state(connection: &mut PgConnection, settled: SettledUntil) -> Result<(), sqlx::Error> {
    let stating = sqlx::query!(
        "INSERT INTO log_progress (instance, settled_until, settled_to) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        settled.log.number(),
        settled.until,
        settled.to
    );
    stating.execute(connection).await.map(drop)
}

/// From now until so long after the next full second of the database's clock.
fn until(instance: &Instance, after: Duration) -> Duration {
    let second = Duration::from_secs(1);
    let now: OffsetDateTime = instance.now();
    let passed = Duration::from_nanos(now.nanosecond().into());
    if passed < after { after - passed } else { second + after - passed }
}

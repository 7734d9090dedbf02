//! Numbers that live in the database, read when somebody asks for them, and not more often than
//! every few seconds, however many ask.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{Executor, PgConnection};
use tokio::{sync::Mutex, time::Instant};

use crate::runtime::{
    database::{Pool, within},
    metrics::{
        Gauge, READING,
        own::{FIGURES_AGE, FIGURES_UP},
    },
};

/// How long a connection and then the answer are waited for: whatever the database does, a scrape is
/// answered long before Prometheus gives it up, which is after 10 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Ends a statement that has found too much to do. Planned each time: a plan of when the tables were small would be kept.
const SESSION: &str =
    "BEGIN READ ONLY; SET LOCAL statement_timeout = '900ms'; SET LOCAL plan_cache_mode = force_custom_plan";

/// Reads the numbers and sets the gauges, each of which is [`Gauge::of_database`].
pub type Question = Arc<dyn for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<(), sqlx::Error>> + Send + Sync>;

#[derive(Clone)]
pub(super) struct FromDatabase {
    pub pool: Pool,
    pub question: Question,
    /// All that the question sets.
    pub gauges: Arc<[&'static Gauge]>,
    pub kept_for: Duration,
    pub asked: Arc<Mutex<Asked>>,
}

impl fmt::Debug for FromDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromDatabase").field("kept_for", &self.kept_for).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct Asked {
    last: Option<Instant>,
    answered: Option<Instant>,
}

impl FromDatabase {
    /// Asks if the last answer, or the last attempt, is too old. What could not be read is not told: an old number beside
    /// fresh ones would pass for one of them.
    pub async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        if asked.last.is_none_or(|last| last.elapsed() >= self.kept_for) {
            let answered = self.ask().await;
            asked.last = Some(Instant::now());
            FIGURES_UP.set(if answered.is_ok() { 1.0 } else { 0.0 });
            match answered {
                Ok(()) => asked.answered = asked.last,
                Err(error) => {
                    self.gauges.iter().for_each(|gauge| gauge.forget());
                    // The tasks that need the database say so themselves.
                    tracing::debug!(error = %error, "the numbers in the database cannot be read");
                }
            }
        }
        FIGURES_AGE.set(asked.answered.map_or(0.0, |then| then.elapsed().as_secs_f64()));
    }

    async fn ask(&self) -> Result<(), sqlx::Error> {
        let mut connection = within(ANSWER_WITHIN, self.pool.acquire()).await?;
        let asking = async {
            connection.execute(SESSION).await?;
            READING.scope((), (self.question)(&mut connection)).await?;
            connection.execute("COMMIT").await.map(|_| ())
        };
        let answer = within(ANSWER_WITHIN, asking).await;
        // After an error the transaction is still open.
        if answer.is_ok() {
            connection.end();
        }
        answer
    }
}

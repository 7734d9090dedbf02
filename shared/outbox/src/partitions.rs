//! The days of the outbox: made ahead, and dropped when everything in them is old and settled.
//!
//! The service's role changes no schema; functions of its owner do, and check what they are asked for. Nobody
//! who writes waits for more than a moment for any of it, whoever reads the tables meanwhile.

use std::time::Duration;

use fail::fail_point;
use shared::runtime::{
    database::{self, Pool},
    health::TaskStatus,
    lifecycle::Shutdown,
};
use tokio::time::sleep;

use crate::{instance::Instance, metrics::DROPPED, settings, tables::end_of_partitions};

/// After this long the connection is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Days ahead that are made before the first message: midnight may come. The task makes the others.
const AT_FIRST: i32 = 1;

/// The background task that makes and drops partitions.
#[derive(Debug)]
pub struct Partitions {
    pub pool: Pool,
    pub instance: Instance,
    pub settings: settings::PartitionsSettings,
    /// How long messages stay, from the end of their day.
    pub kept_for: Duration,
}

impl Partitions {
    /// Makes and drops what is due now and then, until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        let mut pauses = database::backoff();
        loop {
            let pause = match self.keep_up(&status).await {
                Ok(()) => {
                    status.ok();
                    pauses = database::backoff();
                    self.settings.every
                }
                Err(error) => {
                    status.failing(&error, "cannot make or drop partitions of the outbox; trying again");
                    pauses.next().map_or(self.settings.every, |pause| pause.min(self.settings.every))
                }
            };
            if shutdown.unless_draining(sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// # Errors
    /// The database's.
    pub async fn keep_up(&self, status: &TaskStatus) -> Result<(), sqlx::Error> {
        let made = self.make(status).await;
        // What there is is noted whether or not more could be made.
        self.look(status).await?;
        let mut done = made;
        for (name, of_messages) in status.busy(ANSWER_WITHIN, old(&self.pool, self.kept_for)).await? {
            // One that cannot be dropped keeps no other one.
            let dropped = self.drop(&name, of_messages, status).await;
            done = done.and(dropped);
        }
        done
    }

    async fn make(&self, status: &TaskStatus) -> Result<(), sqlx::Error> {
        let days = i32::try_from(self.settings.days_ahead).expect("it is at most 60");
        let making = async {
            fail_point!("partitions::before_making", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
            make_days(&self.pool, days).await
        };
        status.busy(ANSWER_WITHIN, making).await
    }

    async fn look(&self, status: &TaskStatus) -> Result<(), sqlx::Error> {
        let (_, end) = status.busy(ANSWER_WITHIN, end_of_partitions(&self.pool)).await?;
        self.instance.partitions_end_at(end);
        Ok(())
    }

    async fn drop(&self, name: &str, of_messages: bool, status: &TaskStatus) -> Result<(), sqlx::Error> {
        let dropping = async {
            fail_point!("partitions::before_dropping", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
            self.try_to_drop(name, of_messages).await
        };
        let outcome = status.busy(ANSWER_WITHIN, dropping).await?;
        fail_point!("partitions::dropped", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        if outcome == "dropped" {
            DROPPED.add(1);
            tracing::info!(partition = name, "dropped a day of the outbox that is past its retention");
        } else {
            // Somebody reads it, or something in it is not settled: the next time.
            tracing::debug!(partition = name, outcome, "an old partition stays for now");
        }
        Ok(())
    }

    async fn try_to_drop(&self, name: &str, of_messages: bool) -> Result<String, sqlx::Error> {
        if of_messages {
            let dropping = sqlx::query_scalar!(
                r#"SELECT drop_outbox_partition($1, make_interval(secs => $2)) AS "outcome!""#,
                name,
                self.kept_for.as_secs_f64()
            );
            dropping.fetch_one(&self.pool).await
        } else {
            let dropping = sqlx::query_scalar!(r#"SELECT drop_published_partition($1) AS "outcome!""#, name);
            dropping.fetch_one(&self.pool).await
        }
    }
}

/// Makes the days that are missing for now, before anything is written: after a stop of a week, or with an old backup, there
/// are none. No start fails by it: the task tries again, and whoever writes meanwhile is told to come again.
pub async fn prepare(pool: &Pool, instance: &Instance, status: &TaskStatus) {
    let preparing = async {
        make_days(pool, AT_FIRST).await?;
        let (_, end) = end_of_partitions(pool).await?;
        instance.partitions_end_at(end);
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = status.busy(ANSWER_WITHIN, preparing).await {
        tracing::debug!(error = %error, "cannot make partitions of the outbox at the start; trying again");
    }
}

async fn make_days(pool: &Pool, ahead: i32) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT make_partitions($1)", ahead).execute(pool).await.map(drop)
}

/// The partitions that may be old enough, the oldest first; and whether each is of messages.
async fn old(pool: &Pool, kept_for: Duration) -> Result<Vec<(String, bool)>, sqlx::Error> {
    let found = sqlx::query!(
        r#"
        SELECT relname AS "name!", inhparent = 'outbox'::regclass AS "of_messages!"
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent IN ('outbox'::regclass, 'published'::regclass)
            AND partition_day(relname) + interval '24 hours' + make_interval(secs => $1) <= now()
        -- Acknowledgements after the messages they tell of.
        ORDER BY inhparent <> 'outbox'::regclass, relname
        "#,
        kept_for.as_secs_f64()
    );
    Ok(found.fetch_all(pool).await?.into_iter().map(|row| (row.name, row.of_messages)).collect())
}

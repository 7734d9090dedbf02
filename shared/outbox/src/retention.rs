//! The identities, the rebroadcasts and the refusals are forgotten that nobody needs to know any more. Messages leave with
//! their day, see [`crate::partitions`].

use std::time::Duration;

use fail::fail_point;
use shared::runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown};
use time::OffsetDateTime;

use crate::settings;

/// No statement takes longer: the server ends it before.
const ANSWER_WITHIN: Duration = Duration::from_secs(11);
/// An identity stays known for so long after nothing was left in its log: for people who look.
const KNOWN_FOR: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub struct Retention {
    pub pool: Pool,
    pub settings: settings::RetentionSettings,
}

impl Retention {
    /// Forgets now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        loop {
            match self.forget(&shutdown, &status).await {
                Ok(()) => status.ok(),
                Err(error) => status.failing(&error, "cannot purge; trying again later"),
            }
            if shutdown.unless_draining(tokio::time::sleep(self.settings.every)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Forgets what is due.
    ///
    /// # Errors
    /// The database's.
    pub async fn forget(&self, shutdown: &Shutdown, status: &TaskStatus) -> Result<(), sqlx::Error> {
        let identities = status.busy(ANSWER_WITHIN, self.forget_identities()).await;
        self.forget_rejections(shutdown, status).await?;
        identities
    }

    /// What the broker said of a message is known for as long as the message.
    async fn forget_rejections(&self, shutdown: &Shutdown, status: &TaskStatus) -> Result<(), sqlx::Error> {
        // While somebody keeps a snapshot, those of the pages before are still there, dead: they are not read again.
        let mut behind = Some(OffsetDateTime::UNIX_EPOCH);
        while let Some(from) = behind {
            behind = status.busy(ANSWER_WITHIN, self.forget_page_of_rejections(from)).await?;
            if shutdown.unless_draining(tokio::time::sleep(self.settings.pause)).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// From when on the next page is; none where nothing was due.
    async fn forget_page_of_rejections(&self, from: OffsetDateTime) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        let forgotten = sqlx::query_scalar!(
            r#"
            WITH forgotten AS (
                DELETE FROM rejections WHERE ctid = ANY (ARRAY(
                    SELECT ctid FROM rejections
                    WHERE rejected_at >= $3 AND rejected_at < now() - make_interval(secs => $1)
                    ORDER BY rejected_at LIMIT $2
                ))
                RETURNING rejected_at
            )
            SELECT max(rejected_at) FROM forgotten
            "#,
            self.settings.published_messages.as_secs_f64(),
            i64::from(self.settings.batch_size),
            from
        );
        forgotten.fetch_one(&self.pool).await
    }

    async fn forget_identities(&self) -> Result<(), sqlx::Error> {
        fail_point!("retention::before_forgetting", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        sqlx::query!(
            r#"
            WITH forgotten AS (
                -- Its messages are counted first.
                DELETE FROM instances i WHERE done_at < now() - make_interval(secs => $1)
                    AND EXISTS (SELECT FROM counted_logs c WHERE c.instance = i.instance_id AND c.is_whole)
            )
            DELETE FROM rebroadcasts WHERE done_at < now() - make_interval(secs => $1)
            "#,
            KNOWN_FOR.as_secs_f64()
        )
        .execute(&self.pool)
        .await?;
        // What was stated later says all that was stated before. A log that is forgotten has nothing to say.
        sqlx::query!(
            r#"
            WITH said AS (
                DELETE FROM announced WHERE announced_to < (SELECT max(announced_to) FROM announced)
            ), counted AS (
                DELETE FROM counted_logs c WHERE NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = c.instance)
            )
            DELETE FROM log_progress p
            WHERE settled_until < (SELECT max(settled_until) FROM log_progress l WHERE l.instance = p.instance)
                OR NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = p.instance)
            "#
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

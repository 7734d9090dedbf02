//! Who this process is to the outbox. Every process takes a new identity; a row of the outbox is
//! in the memory of its owner only, and what an ended identity left behind is claimed by others.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use sqlx::PgPool;

/// An identity: what a row's `owner` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceId(i64);

/// Owns what fits into no queue. Has always ended.
pub const NOBODY: InstanceId = InstanceId(0);

impl InstanceId {
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

impl From<i64> for InstanceId {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

/// The identity that this process has now.
#[derive(Clone, Debug)]
pub struct Instance {
    current: Arc<AtomicI64>,
}

impl Instance {
    /// Takes a new identity and declares every other one ended: this version of the service is run
    /// as one instance, so whoever else is listed is gone.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let id = sqlx::query_scalar!(
            r#"
            WITH mine AS (INSERT INTO instances DEFAULT VALUES RETURNING instance_id),
                -- Reads the table as it was before the insert: never ends the new identity.
                others AS (UPDATE instances SET ended_at = now() WHERE ended_at IS NULL)
            SELECT instance_id FROM mine
            "#
        )
        .fetch_one(pool)
        .await?;
        tracing::info!(instance = id, "took an identity");
        Ok(Self { current: Arc::new(AtomicI64::new(id)) })
    }

    #[must_use]
    pub fn id(&self) -> InstanceId {
        InstanceId(self.current.load(Ordering::SeqCst))
    }

    /// The one cure for every doubt about what this process owns: ends its identity and takes a
    /// new one. The caller has made sure that nothing is in flight; everything in memory belongs
    /// to the old identity and is dropped where it is met, to be claimed again.
    ///
    /// # Errors
    /// The database's; asking again is safe, an identity that was taken and is not used owns nothing.
    pub async fn renew(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let old = self.id();
        let id = sqlx::query_scalar!(
            r#"
            WITH ended AS (UPDATE instances SET ended_at = coalesce(ended_at, now()) WHERE instance_id = $1)
            INSERT INTO instances DEFAULT VALUES RETURNING instance_id
            "#,
            old.number()
        )
        .fetch_one(pool)
        .await?;
        self.current.store(id, Ordering::SeqCst);
        tracing::warn!(instance = id, "instance.before" = old.number(), "took a new identity");
        Ok(())
    }

    /// Hands everything that this process still owns over to whoever comes next.
    ///
    /// # Errors
    /// The database's.
    pub async fn end(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let id = self.id().number();
        sqlx::query!("UPDATE instances SET ended_at = coalesce(ended_at, now()) WHERE instance_id = $1", id)
            .execute(pool)
            .await?;
        Ok(())
    }
}

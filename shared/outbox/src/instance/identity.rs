//! The statements about identities. The lock of an identity is the session's: it is held for as long
//! as the connection that took it. Its key is the identity's own number, all 64 bits of it.

use std::time::Duration;

use shared::runtime::database::OwnFinding;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;

use crate::instance_id::InstanceId;

/// What one look at the locks shows. It asks for nothing that grows: proof of life hangs on it.
#[derive(Debug)]
pub(super) struct Look {
    /// Somebody has declared this identity ended.
    pub ended: bool,
    /// This very session holds its lock, on a server that takes writes.
    pub is_held: bool,
    /// Changes when a standby was promoted.
    pub timeline: Option<String>,
    pub now: OffsetDateTime,
    /// An operator wants nothing to be announced.
    pub is_paused: bool,
    /// Identities that have not ended and whose lock nobody holds.
    pub gone: Vec<i64>,
    /// Of each of them how many seconds it may be gone, by its own settings.
    pub gone_for: Vec<f64>,
}

/// A new identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub id: InstanceId,
    pub now: OffsetDateTime,
    /// Nothing of this time or later was told to be announced before the identity could be seen.
    pub not_before: OffsetDateTime,
}

/// Takes a new identity. It is locked before it can be seen, so nobody ever sees it without its lock.
pub(super) async fn take(session: &mut PgConnection, takeover_after: Duration) -> Result<Taken, sqlx::Error> {
    let next = sqlx::query!(
        r#"
        SELECT (extract(epoch FROM now())::bigint << 20) | floor(random() * 1048576)::bigint AS "id!", now() AS "now!"
        "#
    );
    let next = next.fetch_one(&mut *session).await?;
    let id = InstanceId::from(next.id);
    if !try_lock(session, id).await? {
        return Err(OwnFinding::Unfit("the lock of a new identity is taken".into()).into());
    }
    let seen = sqlx::query!(
        "INSERT INTO instances (instance_id, takeover_after) VALUES ($1, make_interval(secs => $2))",
        id.number(),
        takeover_after.as_secs_f64()
    );
    seen.execute(&mut *session).await?;
    // Asked once the identity can be seen: whoever tells how far everything is announced has told it before, and
    // then it stands here, or reckons with this identity from its start on. The clock alone would do, if none ever
    // went back.
    let not_before = sqlx::query_scalar!(
        r#"
        SELECT greatest(clock_timestamp(), (SELECT max(announced_to) + interval '1 microsecond' FROM announced), started_at)
            AS "not_before!"
        FROM instances WHERE instance_id = $1
        "#,
        id.number()
    );
    Ok(Taken { id, now: next.now, not_before: not_before.fetch_one(session).await? })
}

pub(super) async fn try_lock(session: &mut PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "locked!""#, id.number()).fetch_one(session).await
}

pub(super) async fn unlock(session: &mut PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_advisory_unlock($1) AS "unlocked!""#, id.number()).fetch_one(session).await
}

pub(super) async fn has_ended(session: &mut PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query_scalar!("SELECT ended_at IS NOT NULL FROM instances WHERE instance_id = $1", id.number());
    // Forgotten long after it had ended, or never visible.
    Ok(ended.fetch_optional(session).await?.flatten().unwrap_or(true))
}

/// Whether it ended by this: an identity ends once.
pub(super) async fn end(connection: &mut PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    let ending =
        sqlx::query!("UPDATE instances SET ended_at = now() WHERE instance_id = $1 AND ended_at IS NULL", id.number());
    Ok(ending.execute(connection).await?.rows_affected() == 1)
}

pub(super) async fn look(session: &mut PgConnection, me: InstanceId) -> Result<Look, sqlx::Error> {
    sqlx::query_as!(
        Look,
        r#"
        WITH held AS MATERIALIZED (
            SELECT pid, (classid::bigint << 32) | objid::bigint AS id FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        ), gone AS MATERIALIZED (
            SELECT instance_id, coalesce(extract(epoch FROM takeover_after), 0)::float8 AS gone_for FROM instances
            WHERE ended_at IS NULL AND instance_id <> $1 AND instance_id NOT IN (SELECT id FROM held)
        )
        SELECT
            NOT EXISTS (SELECT FROM instances WHERE instance_id = $1 AND ended_at IS NULL) AS "ended!",
            NOT pg_is_in_recovery() AND EXISTS (SELECT FROM held WHERE id = $1 AND pid = pg_backend_pid()) AS "is_held!",
            CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline,
            now() AS "now!",
            EXISTS (SELECT FROM pause WHERE until IS NULL OR until > now()) AS "is_paused!",
            ARRAY(SELECT instance_id FROM gone ORDER BY instance_id) AS "gone!",
            ARRAY(SELECT gone_for FROM gone ORDER BY instance_id) AS "gone_for!"
        "#,
        me.number()
    )
    .fetch_one(session)
    .await
}

//! The statements about identities. The lock of an identity is the session's: it is held for as long
//! as the connection that took it.

use sqlx::postgres::PgConnection;

use super::InstanceId;

/// The first half of the key of every identity's lock: "inst" in ASCII.
const LOCK_SPACE: i32 = 0x696e_7374;

/// What one look at the table and the locks shows.
#[derive(Debug)]
pub(super) struct Look {
    /// Somebody has declared this identity ended.
    pub ended: bool,
    /// Identities that have not ended and whose lock nobody holds.
    pub gone: Vec<i64>,
    /// There are unpublished rows without a living owner.
    pub left_behind: bool,
}

/// A new identity. It is locked before it can be seen, so nobody ever sees it without its lock.
pub(super) async fn take(session: &mut PgConnection) -> Result<InstanceId, sqlx::Error> {
    let next = sqlx::query_scalar!(r#"SELECT nextval('instance_id') AS "id!""#);
    let id = InstanceId(next.fetch_one(&mut *session).await?);
    if !try_lock(session, id).await? {
        return Err(sqlx::Error::Protocol("the lock of a new identity is taken".into()));
    }
    sqlx::query!("INSERT INTO instances (instance_id) VALUES ($1)", id.number()).execute(session).await?;
    Ok(id)
}

pub(super) async fn try_lock(session: &mut PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    // The lock's key has 32 bits; identities are drawn from 1 upwards.
    sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1, $2::bigint::integer) AS "locked!""#, LOCK_SPACE, id.number())
        .fetch_one(session)
        .await
}

pub(super) async fn unlock(session: &mut PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT pg_advisory_unlock($1, $2::bigint::integer) AS "unlocked!""#, LOCK_SPACE, id.number())
        .fetch_one(session)
        .await
}

pub(super) async fn has_ended(session: &mut PgConnection, id: InstanceId) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query_scalar!("SELECT ended_at IS NOT NULL FROM instances WHERE instance_id = $1", id.number());
    // Purged long after it had ended, or never visible.
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
        SELECT
            NOT EXISTS (SELECT FROM instances WHERE instance_id = $1 AND ended_at IS NULL) AS "ended!",
            ARRAY(
                SELECT instance_id FROM instances i
                WHERE ended_at IS NULL AND instance_id <> $1 AND NOT EXISTS (
                    SELECT FROM pg_locks l
                    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
                        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND l.classid = $2::integer::bigint::oid AND l.objid = i.instance_id::oid)
            ) AS "gone!",
            EXISTS (
                SELECT FROM instances WHERE ended_at IS NOT NULL
                    -- One probe of the partial index for each, as in outbox::left_behind.
                    AND instance_id = (SELECT min(owner) FROM outbox WHERE owner >= instance_id AND state = 'unpublished')
            ) AS "left_behind!"
        "#,
        me.number(),
        LOCK_SPACE
    )
    .fetch_one(session)
    .await
}

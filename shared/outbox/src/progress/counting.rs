//! What was written in each minute, counted from the outbox: each message once, in the order of its log, as soon as
//! its log is settled up to it. A minute is told when it is closed, once; again where it is in doubt whether it was.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::runtime::database::Pool;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

/// Messages of a log that are counted at once: some 20 ms. What has come in an hour of an outage takes minutes.
const AT_ONCE: i64 = 20_000;

/// What was written from a moment on and before another one, a minute later, by type.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub to: OffsetDateTime,
    pub quantities: BTreeMap<String, i64>,
}

/// Counts what can be counted since the last time. One instance at a time; who comes meanwhile passes by.
///
/// # Errors
/// The database's. The transaction is lost then.
pub(super) async fn count(transaction: &mut PgConnection) -> Result<(), sqlx::Error> {
    let lock = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock('message_counts'::regclass::oid::bigint) AS "is_held!""#
    );
    // With a statement of its own: the next one has to see what whoever had it before has committed.
    if !lock.fetch_one(&mut *transaction).await? {
        return Ok(());
    }
    sqlx::query!(
        r#"
        INSERT INTO counted_logs (instance)
        SELECT instance_id FROM instances i WHERE NOT EXISTS (SELECT FROM counted_logs c WHERE c.instance = i.instance_id)
        "#
    )
    .execute(&mut *transaction)
    .await?;
    let parts = sqlx::query!(
        r#"
        SELECT instance, counted_to, least(settled_to, counted_to + $1::bigint) AS count_to,
            is_done AND coalesce(settled_to <= counted_to + $1::bigint, true) AS "is_whole!"
        FROM (
            SELECT c.instance, c.counted_to, i.done_at IS NOT NULL AS is_done,
                -- What is settled is committed, so that the next statement sees it. Of a log that is done that is all.
                CASE WHEN i.done_at IS NULL THEN (
                    SELECT p.settled_to FROM log_progress p WHERE p.instance = c.instance
                    ORDER BY p.settled_until DESC LIMIT 1
                ) ELSE (
                    SELECT m.seq FROM outbox m WHERE m.instance = c.instance
                    ORDER BY m.instance DESC, m.seq DESC LIMIT 1
                ) END AS settled_to
            FROM counted_logs c JOIN instances i ON i.instance_id = c.instance
            WHERE NOT c.is_whole
        ) AS logs
        "#,
        AT_ONCE
    );
    for part in parts.fetch_all(&mut *transaction).await? {
        let count_to = part.count_to.unwrap_or(part.counted_to);
        if count_to > part.counted_to || part.is_whole {
            // With the places as values: so it is planned for as few messages as there are.
            count_part(transaction, part.instance, (part.counted_to, count_to), part.is_whole).await?;
        }
    }
    Ok(())
}

/// Counts the messages of a log behind one place, up to another.
async fn count_part(
    transaction: &mut PgConnection,
    log: i64,
    (counted_to, count_to): (i64, i64),
    is_whole: bool,
) -> Result<(), sqlx::Error> {
    let counting = sqlx::query!(
        r#"
        WITH counts AS (
            INSERT INTO message_counts AS known (minute, activity_type_code, quantity)
            SELECT date_trunc('minute', activity_at, 'UTC'), activity_type_code, count(*) FROM outbox
            WHERE instance = $1 AND seq > $2 AND seq <= $3
            GROUP BY 1, 2
            ON CONFLICT (minute, activity_type_code) DO UPDATE SET quantity = known.quantity + excluded.quantity
        )
        UPDATE counted_logs SET counted_to = $3, is_whole = $4 WHERE instance = $1
        "#,
        log,
        counted_to,
        count_to,
        is_whole
    );
    counting.execute(transaction).await.map(drop)
}

/// The next minute to be told, if it is closed: it ends at or before `announced_to`, and every message of it is
/// counted.
///
/// # Errors
/// The database's.
pub(super) async fn closed(
    connection: &mut PgConnection,
    announced_to: OffsetDateTime,
) -> Result<Option<Counts>, sqlx::Error> {
    let next = sqlx::query_scalar!(
        r#"
        SELECT next_minute FROM told_counts
        WHERE next_minute + interval '1 minute' <= $1 AND NOT EXISTS (
            SELECT FROM instances i LEFT JOIN counted_logs c ON c.instance = i.instance_id
            WHERE c.is_whole IS NOT true AND NOT EXISTS (
                -- What is behind the place that was counted comes later.
                SELECT FROM log_progress p
                WHERE p.instance = i.instance_id AND p.settled_until >= next_minute + interval '1 minute'
                    AND p.settled_to <= c.counted_to
            )
        )
        "#,
        announced_to
    );
    let Some(from) = next.fetch_optional(&mut *connection).await? else { return Ok(None) };
    let rows = sqlx::query!("SELECT activity_type_code, quantity FROM message_counts WHERE minute = $1", from);
    let rows = rows.fetch_all(connection).await?;
    let quantities = rows.into_iter().map(|row| (row.activity_type_code, row.quantity)).collect();
    Ok(Some(Counts { from, to: from + Duration::minutes(1), quantities }))
}

/// As [`closed`], where there is no transaction.
///
/// # Errors
/// The database's.
pub(super) async fn next_closed(pool: &Pool, announced_to: OffsetDateTime) -> Result<Option<Counts>, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let next = closed(&mut connection, announced_to).await;
    connection.end_with(&next);
    next
}

/// The minute is told. Minutes that were told stay for a day, for people who look.
///
/// # Errors
/// The database's. It is told once more then.
pub(super) async fn told(pool: &Pool, counts: &Counts) -> Result<(), sqlx::Error> {
    let telling = sqlx::query!(
        r#"
        WITH old AS (
            DELETE FROM message_counts WHERE minute < $1::timestamptz - interval '24 hours'
        )
        UPDATE told_counts SET next_minute = $2 WHERE next_minute = $1
        "#,
        counts.from,
        counts.to
    );
    telling.execute(pool).await.map(drop)
}

//! Closed minutes held against the keys, and days that are over. One instance at a time does it.

use std::collections::BTreeMap;

use shared::runtime::database::Pool;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Minutes of one look, a millisecond each: a day of an outage takes half a minute.
const MINUTES: i64 = 300;
/// A minute that differs is looked at again for so long: what was in quarantine may be counted by then.
pub(super) const AGAIN: &str = "7 days";

/// Checks the minutes that are closed and counted, those that differed once more, and notes the days that are complete.
///
/// # Errors
/// The database does not answer.
pub async fn check(pool: &Pool, topics: &[String], time_zone: &str) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let lock = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock('source_minutes'::regclass::oid::bigint) AS "is_held!""#
    );
    if !lock.fetch_one(&mut *transaction).await? {
        return transaction.rollback().await;
    }
    let due = sqlx::query!(
        r#"
        (SELECT m.source, m.minute, s.topic, m.quantities::text AS "quantities!", s.failed
        FROM source_minutes m JOIN sources s USING (source)
        WHERE m.checked_at IS NULL AND m.minute + interval '1 minute' <= s.counted_to AND s.topic = ANY ($1)
        ORDER BY m.minute LIMIT $2)
        UNION ALL
        (SELECT m.source, m.minute, s.topic, m.quantities::text, s.failed
        FROM source_minutes m JOIN sources s USING (source)
        WHERE m.counted IS NOT NULL AND m.checked_at < now() - interval '1 minute' AND s.topic = ANY ($1)
            AND m.minute > now() - $3::text::interval
        ORDER BY m.checked_at LIMIT $2)
        "#,
        topics,
        MINUTES,
        AGAIN
    );
    for one in due.fetch_all(&mut *transaction).await? {
        let (Some(source), Some(minute), Some(topic)) = (one.source, one.minute, one.topic) else { continue };
        let told: BTreeMap<String, i64> = serde_json::from_str(&one.quantities).unwrap_or_default();
        let mut counted = counted(&mut transaction, &topic, minute, "2 minutes").await?;
        if counted != told {
            // A placement of unknown outcome is repeated for a day, and keeps the reference it was given first.
            counted = self::counted(&mut transaction, &topic, minute, "24 hours").await?;
        }
        let counted = (counted != told).then(|| serde_json::to_string(&counted).expect("texts and numbers are JSON"));
        if let Some(counted) = &counted {
            tracing::warn!(source, %minute, told = one.quantities, counted, "a minute was not counted as it was written");
        }
        let noting = sqlx::query!(
            "UPDATE source_minutes SET checked_at = now(), counted = $3::text::jsonb WHERE source = $1 AND minute = $2",
            source,
            minute,
            counted
        );
        noting.execute(&mut *transaction).await?;
    }
    note_complete_days(&mut transaction, topics, time_zone).await?;
    transaction.commit().await
}

/// What was counted of a minute, by the keys. References are drawn a moment before, `slack` at most.
async fn counted(
    connection: &mut PgConnection,
    topic: &str,
    minute: OffsetDateTime,
    slack: &str,
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        SELECT activity_type_code, count(*) AS "quantity!" FROM processed_messages
        WHERE undated = false AND topic = $1 AND activity_at >= $2 AND activity_at < $2 + interval '1 minute'
            AND message_ref >= rpad(lpad(to_hex(
                (EXTRACT(EPOCH FROM $2 - $3::text::interval) * 1000)::bigint), 12, '0'), 32, '0')::uuid
            AND message_ref < rpad(lpad(to_hex(
                (EXTRACT(EPOCH FROM $2 + interval '2 minutes') * 1000)::bigint), 12, '0'), 32, '0')::uuid
        GROUP BY activity_type_code
        "#,
        topic,
        minute,
        slack
    );
    Ok(rows.fetch_all(connection).await?.into_iter().map(|row| (row.activity_type_code, row.quantity)).collect())
}

/// Notes the figures of each day of the last week that is complete for the first time.
async fn note_complete_days(
    connection: &mut PgConnection,
    topics: &[String],
    time_zone: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        INSERT INTO complete_days (activity_date, quantities)
        SELECT day, coalesce((
            SELECT jsonb_object_agg(activity_type_code, quantity) FROM daily_activities WHERE activity_date = day
        ), '{}')
        FROM (SELECT (now() AT TIME ZONE $2)::date - ago AS day FROM generate_series(1, 7) AS ago) AS days
        WHERE NOT EXISTS (SELECT FROM UNNEST($1::text[]) AS topic WHERE topic NOT IN (SELECT topic FROM sources))
            AND (day + 1)::timestamp AT TIME ZONE $2
                <= ALL (SELECT coalesce(counted_to, '-infinity') FROM sources WHERE topic = ANY ($1))
        ON CONFLICT (activity_date) DO NOTHING
        "#,
        topics,
        time_zone
    )
    .execute(connection)
    .await?;
    Ok(())
}

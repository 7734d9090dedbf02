//! Figures of days held against what was counted of their minutes: a figure that somebody has changed, or that counts
//! a message twice, is named. The minutes themselves are held against the keys and the sources.

use shared::runtime::database::Pool;
use time::OffsetDateTime;

/// Days that are looked at, today beside: as long as minutes that differ are looked at again.
const DAYS: i32 = 7;

/// References are drawn a moment before what they tell of.
const SLACK: &str = "2 minutes";
const LONGEST_SLACK: &str = "24 hours";

/// What Postgres says where another transaction has changed a row since the snapshot.
const SERIALIZATION_FAILURE: &str = "40001";

/// Looks at the figures. Where another instance changes the same meanwhile the next look is soon enough.
///
/// # Errors
/// The database does not answer.
pub async fn check_figures(pool: &Pool, topics: &[String], time_zone: &str) -> Result<(), sqlx::Error> {
    let looked = async {
        if look(pool, topics, time_zone, SLACK).await? > 0 {
            // A placement of unknown outcome is repeated for a day, and keeps the reference it was given first.
            look(pool, topics, time_zone, LONGEST_SLACK).await?;
        }
        Ok(())
    };
    match looked.await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(SERIALIZATION_FAILURE) => Ok(()),
        other => other,
    }
}

/// Notes the figures that differ, and forgets those that do not any more. Nothing new is said of a day of which a
/// source has not told each minute up to now. Answers with how many differ.
///
/// # Errors
/// The database does not answer, or another transaction has come first.
async fn look(pool: &Pool, topics: &[String], time_zone: &str, slack: &str) -> Result<u64, sqlx::Error> {
    // One snapshot: what is counted between two looks is in both or in neither.
    let mut transaction = pool.begin().await?;
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *transaction).await?;
    let lock = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock('differing_figures'::regclass::oid::bigint) AS "is_held!""#
    );
    if !lock.fetch_one(&mut *transaction).await? {
        transaction.rollback().await?;
        return Ok(0);
    }
    // Up to when each source has told every minute, and each of them was looked at. One that has just begun wrote nothing
    // before.
    let checked_to = sqlx::query_scalar!(
        r#"
        SELECT CASE WHEN bool_and(checked_to IS NOT NULL) AND count(DISTINCT topic) = cardinality($1::text[])
            THEN min(checked_to) END AS checked_to
        FROM (
            SELECT topic, coalesce((
                SELECT minute + interval '1 minute' FROM source_minutes m
                WHERE m.source = s.source AND checked_at IS NOT NULL ORDER BY minute DESC LIMIT 1
            ), since) AS checked_to
            FROM sources s WHERE topic = ANY ($1)
        ) AS each
        "#,
        topics
    );
    let Some(checked_to): Option<OffsetDateTime> = checked_to.fetch_one(&mut *transaction).await? else {
        transaction.rollback().await?;
        return Ok(0);
    };
    let differing = sqlx::query!(
        r#"
        WITH days AS (
            SELECT day, begin, "end", least("end", $3) AS until
            FROM (
                SELECT day, day::timestamp AT TIME ZONE $2 AS begin, (day + 1)::timestamp AT TIME ZONE $2 AS "end"
                FROM (SELECT ($3::timestamptz AT TIME ZONE $2)::date - ago AS day FROM generate_series(0, $4) AS ago) AS n
            ) AS bounds
        ), whole AS (
            SELECT * FROM days d WHERE until > begin
            -- While a source is silent nothing is said of the day it has stopped on: its tail would grow.
            AND ("end" <= $3 OR $3 > now() - interval '10 minutes')
            -- Nor of days with activities of a topic that is not read any more.
            AND NOT EXISTS (
                SELECT FROM sources s JOIN source_minutes m USING (source)
                WHERE s.topic <> ALL ($1) AND m.minute >= begin AND m.minute < until
            )
            AND NOT EXISTS (
                SELECT FROM sources s
                WHERE s.topic = ANY ($1) AND greatest(EXTRACT(EPOCH FROM until - greatest(begin, since)) / 60, 0) <> (
                    SELECT count(*) FROM source_minutes m
                    WHERE m.source = s.source AND m.minute >= begin AND m.minute < until AND m.checked_at IS NOT NULL
                )
            )
        ), tail AS (
            -- Counted and in no minute yet.
            SELECT (activity_at AT TIME ZONE $2)::date AS day, activity_type_code AS code, count(*) AS quantity
            FROM processed_messages
            WHERE $3 > now() - interval '10 minutes' AND undated = false AND activity_at >= $3 AND message_ref >= rpad(lpad(to_hex(
                (EXTRACT(EPOCH FROM $3 - $5::text::interval) * 1000)::bigint), 12, '0'), 32, '0')::uuid
            GROUP BY 1, 2
        ), expected AS (
            SELECT day, code, sum(quantity)::bigint AS quantity FROM (
                SELECT day, one.key AS code, one.value::bigint AS quantity
                FROM whole JOIN source_minutes m ON m.minute >= begin AND m.minute < until JOIN sources s USING (source)
                    CROSS JOIN LATERAL jsonb_each_text(coalesce(m.counted, m.quantities)) AS one
                WHERE s.topic = ANY ($1)
                UNION ALL
                SELECT day, code, quantity FROM tail
            ) AS parts
            GROUP BY day, code
        ), figures AS (
            SELECT activity_date AS day, activity_type_code AS code, quantity FROM daily_activities
            WHERE activity_date BETWEEN ($3::timestamptz AT TIME ZONE $2)::date - $4::int AND ($3 AT TIME ZONE $2)::date
        ), differing AS (
            SELECT day, code, coalesce(e.quantity, 0) AS expected, coalesce(f.quantity, 0) AS counted
            FROM figures f FULL JOIN expected e USING (day, code) JOIN whole USING (day)
            WHERE coalesce(e.quantity, 0) <> coalesce(f.quantity, 0)
        ), gone AS (
            -- Of a day that was looked at, or is not looked at any more.
            DELETE FROM differing_figures known
            WHERE (activity_date IN (SELECT day FROM whole) OR activity_date < (SELECT min(day) FROM days))
                AND NOT EXISTS (
                    SELECT FROM differing d WHERE (d.day, d.code) = (known.activity_date, known.activity_type_code)
                )
        ), again AS (
            -- Not as old as they may be: what was counted from the quarantine since is known at the next look.
            UPDATE source_minutes m SET checked_at = now() - interval '2 minutes'
            WHERE m.counted IS NOT NULL AND EXISTS (
                SELECT FROM differing JOIN whole USING (day) WHERE m.minute >= begin AND m.minute < until
            )
        )
        INSERT INTO differing_figures AS known (activity_date, activity_type_code, expected, counted)
        SELECT day, code, expected, counted FROM differing
        ON CONFLICT (activity_date, activity_type_code) DO UPDATE SET expected = excluded.expected,
            counted = excluded.counted,
            -- What is counted from the quarantine meanwhile differs for a look, then less. What goes on growing is no such.
            since = CASE WHEN sign(known.counted - known.expected) = sign(excluded.counted - excluded.expected)
                    AND abs(known.counted - known.expected) <= abs(excluded.counted - excluded.expected)
                THEN known.since ELSE now() END
        "#,
        topics,
        time_zone,
        checked_to,
        DAYS,
        slack
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(differing.rows_affected())
}

//! Closed minutes held against the keys, and days that are over. One instance at a time does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use shared::runtime::database::Pool;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Minutes of one look, a millisecond each: a day of an outage takes half a minute.
const MINUTES: i64 = 300;
/// Then a look ends, and its minutes are committed: the next look goes on with the others.
const LOOK_FOR: Duration = Duration::from_secs(5);
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
    let begun = Instant::now();
    for minute in due(&mut transaction, topics).await? {
        check_minute(&mut transaction, minute).await?;
        if begun.elapsed() > LOOK_FOR {
            break;
        }
    }
    note_complete_days(&mut transaction, topics, time_zone).await?;
    transaction.commit().await
}

/// A minute of a topic, and what its sources say they wrote in it.
struct Minute {
    topic: String,
    minute: OffsetDateTime,
    /// The first of them stands for all where something differs: a key does not tell whose message it is of.
    sources: Vec<String>,
    quantities: Vec<String>,
    /// Each source that had begun by then has told of it. One may have told while nobody here was reading.
    is_told: bool,
}

/// Those to be looked at: each source of the topic has told of it, or of later ones, and all of that is counted.
async fn due(connection: &mut PgConnection, topics: &[String]) -> Result<Vec<Minute>, sqlx::Error> {
    sqlx::query_as!(
        Minute,
        r#"
        WITH begun AS (
            SELECT source, topic, coalesce(since, (
                SELECT minute FROM source_minutes m WHERE m.source = s.source ORDER BY minute LIMIT 1
            )) AS begin, least(coalesce(counted_to, since, '-infinity'), coalesce((
                SELECT minute + interval '1 minute' FROM source_minutes m WHERE m.source = s.source
                ORDER BY minute DESC LIMIT 1
            ), since, 'infinity')) AS "end"
            FROM sources s WHERE topic = ANY ($1)
        ), due AS (
            (SELECT DISTINCT topic, m.minute, false AS is_again
            FROM source_minutes m JOIN begun b USING (source)
                JOIN (SELECT topic, min("end") AS "end" FROM begun GROUP BY topic) AS slowest USING (topic)
            WHERE m.checked_at IS NULL AND m.minute <= slowest."end" - interval '1 minute'
            ORDER BY m.minute LIMIT $2)
            UNION ALL
            (SELECT topic, minute, true FROM (
                SELECT b.topic, m.minute FROM source_minutes m JOIN begun b USING (source)
                WHERE m.counted IS NOT NULL AND m.checked_at < now() - interval '1 minute'
                    AND m.minute > now() - $3::text::interval
                ORDER BY m.checked_at LIMIT $2
            ) AS again)
        )
        SELECT d.topic AS "topic!", d.minute AS "minute!", array_agg(m.source ORDER BY m.source COLLATE "C") AS "sources!",
            array_agg(m.quantities::text) AS "quantities!",
            count(*) = (SELECT count(*) FROM begun b WHERE b.topic = d.topic AND b.begin <= d.minute) AS "is_told!"
        FROM (SELECT topic, minute, bool_and(is_again) AS is_again FROM due GROUP BY topic, minute) d
            JOIN begun b USING (topic) JOIN source_minutes m ON m.source = b.source AND m.minute = d.minute
        GROUP BY d.topic, d.minute, d.is_again
        ORDER BY d.is_again, CASE WHEN d.is_again THEN min(m.checked_at) END, d.minute
        "#,
        topics,
        MINUTES,
        AGAIN
    )
    .fetch_all(connection)
    .await
}

/// Then what was counted of that minute is not to be had any more.
async fn keys_may_be_purged(connection: &mut PgConnection, minute: OffsetDateTime) -> Result<bool, sqlx::Error> {
    let purged =
        sqlx::query_scalar!(r#"SELECT coalesce(newest_purged >= $1, false) AS "purged!" FROM key_horizon"#, minute);
    purged.fetch_one(connection).await
}

/// Holds what was counted of it against the sum of what its sources say.
async fn check_minute(connection: &mut PgConnection, one: Minute) -> Result<(), sqlx::Error> {
    let Minute { topic, minute, sources, quantities, is_told } = one;
    if keys_may_be_purged(connection, minute).await? {
        // What was found of it before stays.
        let looked_at = sqlx::query!(
            "UPDATE source_minutes SET checked_at = now() WHERE source = ANY ($1) AND minute = $2",
            &sources,
            minute
        );
        return looked_at.execute(connection).await.map(drop);
    }
    let quantities =
        quantities.iter().flat_map(|one| serde_json::from_str::<BTreeMap<String, i64>>(one).unwrap_or_default());
    let mut told = BTreeMap::new();
    quantities.for_each(|(code, quantity)| *told.entry(code).or_insert(0) += quantity);
    let mut counted = counted(connection, &topic, minute, "2 minutes").await?;
    if counted != told {
        // A placement of unknown outcome is repeated for a day, and keeps the reference it was given first.
        counted = self::counted(connection, &topic, minute, "24 hours").await?;
    }
    let difference = (is_told && counted != told).then(|| {
        let codes: BTreeSet<&String> = told.keys().chain(counted.keys()).collect();
        let of = |quantities: &BTreeMap<String, i64>, code| quantities.get(code).copied().unwrap_or(0);
        codes.into_iter().map(|code| (code, of(&counted, code) - of(&told, code))).collect::<BTreeMap<_, _>>()
    });
    if difference.is_some() {
        tracing::warn!(topic, %minute, ?told, ?counted, "a minute was not counted as it was written");
    }
    let difference =
        difference.map(|difference| serde_json::to_string(&difference).expect("texts and numbers are JSON"));
    sqlx::query!(
        r#"
        UPDATE source_minutes SET checked_at = now(), counted = CASE WHEN source = ($1::text[])[1] THEN (
            SELECT jsonb_object_agg(code, coalesce((quantities ->> code)::bigint, 0) + difference::bigint)
            FROM jsonb_each_text($3::text::jsonb) AS d (code, difference)
        ) END
        WHERE source = ANY ($1) AND minute = $2
        "#,
        &sources,
        minute,
        difference
    )
    .execute(connection)
    .await
    .map(drop)
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

/// Notes the figures of each day that is complete for the first time.
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
        FROM (
            SELECT (now() AT TIME ZONE $2)::date - ago AS day
            -- After an outage older ones become complete, as far as a range of figures reaches.
            FROM generate_series(1, CASE WHEN (SELECT min(since) FROM sources) < now() - interval '7 days' THEN 400 ELSE 7 END) AS ago
        ) AS days
        WHERE NOT EXISTS (SELECT FROM complete_days WHERE activity_date = day)
            AND day >= (SELECT coalesce(min(since AT TIME ZONE $2)::date, (now() AT TIME ZONE $2)::date - 7) FROM sources)
            AND NOT EXISTS (SELECT FROM UNNEST($1::text[]) AS topic WHERE topic NOT IN (SELECT topic FROM sources))
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

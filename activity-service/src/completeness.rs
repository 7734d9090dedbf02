//! How far the figures are complete, and whether they are what the sources say they wrote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::runtime::database::Pool;
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;

use crate::place::Partition;

mod check;
mod day;
mod figures;

pub use check::check;
pub use day::{Day, Difference, Late, Quantity, State, of_day};
pub use figures::check_figures;

/// An announcement, as the contract has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Announcement {
    pub source: String,
    /// Absent where the source writes to the one topic there is.
    pub topic: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub announced_to: OffsetDateTime,
    /// Nothing was written before. Absent where the source does not know it.
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub since: Option<OffsetDateTime>,
    /// By partition an offset behind everything up to then.
    pub ends: BTreeMap<i32, i64>,
    pub unannounced: i64,
    #[serde(with = "time::serde::rfc3339::option", default)]
    pub oldest_unannounced_at: Option<OffsetDateTime>,
    pub failed: i64,
    /// Given up by operators of the source.
    #[serde(default)]
    pub discarded: i64,
    pub counts: Option<Counts>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counts {
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub to: OffsetDateTime,
    pub quantities: BTreeMap<String, i64>,
}

/// A source that is not heard of for so long is named.
const SILENT_AFTER: &str = "60 seconds";

/// A figure that differs for so long, at two looks at least, is named.
const DIFFERS_FOR: &str = "15 seconds";

/// How far the clocks of the sources' databases and of this one may differ.
pub(crate) const CLOCKS_DIFFER_BY: &str = "1 hour";

/// What a source tells of itself, and how much of it is counted.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub source: String,
    pub topic: String,
    /// Everything of this time or earlier is on the topic, or failed.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub announced_to: OffsetDateTime,
    /// Everything of this time or earlier is in the figures, in quarantine or failed.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub counted_to: Option<OffsetDateTime>,
    #[schema(minimum = 0)]
    pub unannounced: i64,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest_unannounced_at: Option<OffsetDateTime>,
    #[schema(minimum = 0)]
    pub failed: i64,
    /// Since when nothing was heard of it, where that is a minute ago or longer.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub silent_since: Option<OffsetDateTime>,
}

/// How far the figures are complete.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Completeness {
    /// Every activity of this time or earlier is in the figures, in quarantine or failed. Nothing while that is not known.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub complete_to: Option<OffsetDateTime>,
    /// How long ago that is.
    #[schema(minimum = 0)]
    pub freshness_seconds: Option<f64>,
    /// Messages that wait in quarantine; 10001 means more than 10000.
    #[schema(minimum = 0)]
    pub quarantined: i64,
    /// Gaps in what was read that are not closed.
    #[schema(minimum = 0)]
    pub open_gaps: i64,
    pub sources: Vec<Source>,
}

impl Completeness {
    /// Whether the other one says anything else than that time goes on.
    #[must_use]
    pub fn has_moved(&self, other: &Self) -> bool {
        (self.complete_to, self.quarantined, self.open_gaps) != (other.complete_to, other.quarantined, other.open_gaps)
            || self.sources != other.sources
    }
}

/// How far the figures of `topics` are complete: as far as the slowest source. Unknown while one of the topics has
/// no source that has told anything.
///
/// # Errors
/// The database does not answer.
pub async fn of(pool: &Pool, topics: &[String]) -> Result<Completeness, sqlx::Error> {
    let sources = sqlx::query_as!(
        Source,
        r#"
        SELECT source, topic, announced_to, counted_to, unannounced, oldest_unannounced_at,
            failed + tried_again AS "failed!",
            CASE WHEN told_at <= now() - $2::text::interval THEN told_at END AS silent_since
        FROM sources WHERE topic = ANY ($1) ORDER BY source COLLATE "C"
        "#,
        topics,
        SILENT_AFTER
    );
    let sources = sources.fetch_all(pool).await?;
    let is_known = topics.iter().all(|topic| sources.iter().any(|source| source.topic == *topic));
    let slowest = sources.iter().map(|source| source.counted_to).min().flatten();
    let complete_to = slowest.filter(|_| is_known);
    let found = sqlx::query!(
        r#"
        SELECT
            (SELECT count(*) FROM (SELECT FROM quarantine WHERE state = 'waiting' LIMIT 10001) AS bounded) AS "quarantined!",
            (SELECT count(*) FROM (SELECT FROM consumption_gaps WHERE state <> 'closed' LIMIT 10001) AS bounded) AS "open_gaps!",
            greatest(EXTRACT(EPOCH FROM now() - $1::timestamptz), 0)::double precision AS freshness_seconds
        "#,
        complete_to
    );
    let found = found.fetch_one(pool).await?;
    Ok(Completeness {
        complete_to,
        freshness_seconds: complete_to.and(found.freshness_seconds),
        quarantined: found.quarantined,
        open_gaps: found.open_gaps,
        sources,
    })
}

/// Up to when a source has announced everything, and behind which offsets of the partitions that is.
#[derive(Clone, Debug)]
pub(crate) struct Announced {
    pub topic: String,
    pub announced_to: OffsetDateTime,
    pub ends: BTreeMap<i32, i64>,
    /// Those that are tried again have not failed any more, and are counted by the time that `ends` are.
    pub failed: i64,
}

/// An announcement, and where it stands.
#[derive(Debug)]
pub(crate) struct Told {
    pub announcement: Announcement,
    pub topic: String,
    pub offset: i64,
}

/// The offset of the last announcement that is known, and by source what is announced and not counted.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn told(
    pool: &Pool,
    topics: &[String],
) -> Result<(Option<i64>, Vec<(String, Announced)>), sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        SELECT source, topic, told_offset, announced_to, failed,
            CASE WHEN ends_to = announced_to AND (counted_to IS NULL OR counted_to < announced_to) THEN ends::text END
                AS waits_for
        FROM sources
        "#
    );
    let rows = rows.fetch_all(pool).await?;
    let offset = rows.iter().map(|row| row.told_offset).max();
    let waiting = rows.into_iter().filter(|row| topics.contains(&row.topic)).filter_map(|row| {
        let ends = serde_json::from_str(&row.waits_for?).ok()?;
        Some((row.source, Announced { topic: row.topic, announced_to: row.announced_to, ends, failed: row.failed }))
    });
    Ok((offset, waiting.collect()))
}

/// The offset of the last announcement that is known.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn told_offset(pool: &Pool) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!("SELECT max(told_offset) FROM sources").fetch_one(pool).await
}

fn as_json<K: Serialize>(numbers: &BTreeMap<K, i64>) -> String {
    serde_json::to_string(numbers).expect("numbers are JSON")
}

/// Of all that a source tells at once.
fn least_ends(told: &[Told], source: &str) -> BTreeMap<i32, i64> {
    let mut least = BTreeMap::new();
    let of_source = told.iter().map(|one| &one.announcement).filter(|one| one.source == source);
    for (partition, end) in of_source.flat_map(|one| &one.ends) {
        let known = least.entry(*partition).or_insert(*end);
        *known = (*known).min(*end);
    }
    least
}

/// Writes down what sources tell, in the order in which they told it.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn note(pool: &Pool, told: &[Told]) -> Result<(), sqlx::Error> {
    // Before it is noted how far the topic is read: what comes before that is not read again.
    note_minutes(pool, told).await?;
    fail::fail_point!("completeness::half_noted", |_| std::process::abort());
    let newest: BTreeMap<&str, &Told> = told.iter().map(|one| (one.announcement.source.as_str(), one)).collect();
    let of_newest = || newest.values().map(|one| &one.announcement);
    let sources: Vec<&str> = newest.keys().copied().collect();
    let topics: Vec<&str> = newest.values().map(|one| one.topic.as_str()).collect();
    let offsets: Vec<i64> = newest.values().map(|one| one.offset).collect();
    let announced_to: Vec<OffsetDateTime> = of_newest().map(|one| one.announced_to).collect();
    let unannounced: Vec<i64> = of_newest().map(|one| one.unannounced).collect();
    let oldest_unannounced_at: Vec<Option<OffsetDateTime>> = of_newest().map(|one| one.oldest_unannounced_at).collect();
    let failed: Vec<i64> = of_newest().map(|one| one.failed).collect();
    let most_failed = |source| {
        let of_source = told.iter().map(|one| &one.announcement).filter(|one| one.source == source);
        of_source.map(|one| one.failed).max().unwrap_or_default()
    };
    let tried_again: Vec<i64> = of_newest().map(|one| most_failed(one.source.as_str()) - one.failed).collect();
    let discarded: Vec<i64> = of_newest().map(|one| one.discarded).collect();
    let since: Vec<Option<OffsetDateTime>> = of_newest().map(|one| one.since).collect();
    let ends: Vec<String> = of_newest().map(|one| as_json(&one.ends)).collect();
    let least: Vec<String> = sources.iter().map(|source| as_json(&least_ends(told, source))).collect();
    sqlx::query!(
        r#"
        WITH told AS (
            SELECT source, topic, announced_to, unannounced, oldest_unannounced_at, failed, told_offset, discarded, since,
                ends::jsonb AS ends, least::jsonb AS least, tried_again
            FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::timestamptz[], $6::bigint[],
                $7::bigint[], $8::bigint[], $9::timestamptz[], $10::text[], $11::text[], $12::bigint[])
                AS told (source, topic, announced_to, unannounced, oldest_unannounced_at, failed, told_offset, discarded,
                    since, ends, least, tried_again)
        ), fallen AS (
            -- A partition only grows. One that ends before the end it had, or has none, may be another one.
            SELECT told.topic, partition::integer AS partition, max(had."end"::bigint) AS "end"
            FROM told JOIN sources AS known USING (source, topic) CROSS JOIN jsonb_each_text(known.ends) AS had (partition, "end")
            WHERE known.announced_to <= told.announced_to
                AND coalesce((told.least ->> partition)::bigint, 0) < had."end"::bigint
            GROUP BY 1, 2
        ), doubted AS (
            UPDATE consumer_positions AS position SET told_end = greatest(position.told_end, fallen."end") FROM fallen
            WHERE (position.topic, position.partition) = (fallen.topic, fallen.partition)
        )
        INSERT INTO sources AS known (source, topic, announced_to, unannounced, oldest_unannounced_at, failed, told_offset,
            discarded, since, ends, ends_to, tried_again)
        SELECT source, topic, announced_to, unannounced, oldest_unannounced_at, failed, told_offset, discarded, since, ends,
            announced_to, tried_again
        FROM told ORDER BY source
        ON CONFLICT (source) DO UPDATE SET topic = excluded.topic,
            announced_to = greatest(known.announced_to, excluded.announced_to), unannounced = excluded.unannounced,
            oldest_unannounced_at = excluded.oldest_unannounced_at,
            failed = excluded.failed,
            tried_again = greatest(known.failed + known.tried_again - excluded.failed, excluded.tried_again, 0),
            discarded = excluded.discarded, told_at = now(),
            told_offset = excluded.told_offset, since = coalesce(excluded.since, known.since),
            ends = CASE WHEN known.announced_to <= excluded.announced_to THEN excluded.ends ELSE known.ends END,
            ends_to = CASE WHEN known.announced_to <= excluded.announced_to THEN excluded.ends_to ELSE known.ends_to END
        -- Not what is only read again. On a topic that was made anew offsets begin again.
        WHERE known.told_offset < excluded.told_offset OR known.announced_to < excluded.announced_to
        "#,
        &sources as _,
        &topics as _,
        &announced_to,
        &unannounced,
        &oldest_unannounced_at as _,
        &failed,
        &offsets,
        &discarded,
        &since as _,
        &ends,
        &least,
        &tried_again
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Writes down what sources wrote in each minute that they tell of.
async fn note_minutes(pool: &Pool, told: &[Told]) -> Result<(), sqlx::Error> {
    let minutes: BTreeMap<(&str, OffsetDateTime), String> = told
        .iter()
        .filter_map(|Told { announcement, .. }| {
            let counts = announcement.counts.as_ref()?;
            Some(((announcement.source.as_str(), counts.from), as_json(&counts.quantities)))
        })
        .collect();
    if minutes.is_empty() {
        return Ok(());
    }
    let (sources, begins): (Vec<&str>, Vec<OffsetDateTime>) = minutes.keys().copied().unzip();
    let quantities: Vec<String> = minutes.into_values().collect();
    sqlx::query!(
        r#"
        WITH told AS (
            SELECT source, minute, quantities::jsonb
            FROM UNNEST($1::text[], $2::timestamptz[], $3::text[]) AS told (source, minute, quantities)
        ), old AS (
            DELETE FROM source_minutes WHERE (source, minute) IN (
                SELECT source, outdated.minute FROM told CROSS JOIN LATERAL (
                    SELECT minute FROM source_minutes AS known
                    -- As long as a range of figures can be asked for.
                    WHERE known.source = told.source AND known.minute < told.minute - interval '400 days'
                    ORDER BY minute LIMIT 10
                ) AS outdated
            )
        )
        INSERT INTO source_minutes AS known (source, minute, quantities)
        SELECT source, minute, quantities FROM told ORDER BY source, minute
        ON CONFLICT (source, minute) DO UPDATE SET quantities = excluded.quantities, checked_at = NULL
        WHERE known.quantities <> excluded.quantities
        "#,
        &sources as _,
        &begins,
        &quantities
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// What is to be read next of each partition: everything before is counted, or in quarantine. Not of those of which it is
/// not known whether they are the ones that were counted.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn positions(pool: &Pool, topics: &[String]) -> Result<BTreeMap<Partition, i64>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT topic, partition, next_offset FROM consumer_positions WHERE topic = ANY ($1) AND told_end IS NULL",
        topics
    );
    Ok(rows
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(|row| (Partition::new(row.topic, row.partition), row.next_offset))
        .collect())
}

/// Up to when a source is counted, and how many of its messages had failed by then or have since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountedTo {
    pub time: OffsetDateTime,
    pub failed: i64,
}

/// Everything that a source wrote up to its time is counted, or in quarantine.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn are_counted(pool: &Pool, counted: &BTreeMap<String, CountedTo>) -> Result<(), sqlx::Error> {
    let sources: Vec<&str> = counted.keys().map(String::as_str).collect();
    let times: Vec<OffsetDateTime> = counted.values().map(|one| one.time).collect();
    let failed: Vec<i64> = counted.values().map(|one| one.failed).collect();
    let moving = sqlx::query!(
        r#"
        WITH counted AS (
            SELECT source, counted_to, failed
            FROM UNNEST($1::text[], $2::timestamptz[], $3::bigint[]) AS counted (source, counted_to, failed) ORDER BY source
        )
        UPDATE sources AS known SET counted_to = counted.counted_to, tried_again = greatest(counted.failed - known.failed, 0)
        FROM counted
        WHERE known.source = counted.source AND (known.counted_to IS NULL OR known.counted_to < counted.counted_to)
        "#,
        &sources as _,
        &times,
        &failed
    );
    moving.execute(pool).await.map(drop)
}

/// What the metrics tell of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Of what is complete, in seconds; none while that is not known.
    pub age: Option<f64>,
    pub silent: i64,
    pub differing: i64,
}

/// Asks for it. What is in quarantine, in a gap or failed is missing in its minute, and explains as many as it is: of the
/// newest minutes first, and only of minutes that had begun when it was received. Minutes that are not looked at any more
/// are left out: mended or not, they would differ for ever, and what explained them has left the quarantine.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn differences(connection: &mut PgConnection, topics: &[String]) -> Result<Measured, sqlx::Error> {
    sqlx::query_as!(
        Measured,
        r#"
        WITH differing AS (
            SELECT m.minute, sums.more, sums.less
            FROM source_minutes m CROSS JOIN LATERAL (
                SELECT coalesce(sum(greatest(difference, 0)), 0) AS more, coalesce(sum(greatest(-difference, 0)), 0) AS less
                FROM (
                    SELECT coalesce((m.counted ->> code)::bigint, 0) - coalesce((m.quantities ->> code)::bigint, 0) AS difference
                    FROM jsonb_object_keys(m.quantities || m.counted) AS code
                ) AS of_codes
            ) AS sums
            WHERE m.counted IS NOT NULL AND m.minute > now() - $3::text::interval
            ORDER BY m.minute DESC LIMIT 1001
        ), kept AS (
            (SELECT received_at FROM quarantine WHERE state = 'waiting' ORDER BY received_at DESC LIMIT 10001)
            UNION ALL
            (SELECT received_at FROM quarantine WHERE state = 'discarded' ORDER BY received_at DESC LIMIT 10001)
        ), events AS (
            SELECT minute AS at, more, less, 0 AS missing FROM differing
            UNION ALL
            SELECT received_at + $4::text::interval, 0, 0, 1 FROM kept WHERE EXISTS (SELECT FROM differing)
            UNION ALL
            SELECT found_at + $4::text::interval, 0, 0, to_offset - from_offset FROM consumption_gaps WHERE state <> 'closed'
            UNION ALL
            SELECT 'infinity', 0, 0, coalesce(sum(failed + tried_again + discarded), 0) FROM sources WHERE topic = ANY ($5)
        ), so_far AS (
            SELECT more, less, sum(less) OVER later AS lost, sum(missing) OVER later AS missing
            FROM events WINDOW later AS (ORDER BY at DESC)
        )
        SELECT (
                SELECT EXTRACT(EPOCH FROM now() - min(counted_to))::double precision FROM sources WHERE topic = ANY ($5)
                -- As it is answered: of the slowest, of each topic.
                HAVING bool_and(counted_to IS NOT NULL) AND count(DISTINCT topic) = cardinality($5::text[])
            ) AS age,
            (SELECT count(*) FROM sources WHERE told_at <= now() - $1::text::interval AND topic = ANY ($5)) AS "silent!",
            (SELECT count(*) FROM so_far WHERE more > 0 OR (less > 0 AND lost > missing))
                + (SELECT count(*) FROM differing_figures WHERE since <= now() - $2::text::interval) AS "differing!"
        "#,
        SILENT_AFTER,
        DIFFERS_FOR,
        check::AGAIN,
        CLOCKS_DIFFER_BY,
        topics
    )
    .fetch_one(connection)
    .await
}

/// When a day of the business time zone begins, and when it ends.
async fn bounds(pool: &Pool, date: Date, time_zone: &str) -> Result<(OffsetDateTime, OffsetDateTime), sqlx::Error> {
    let bounds = sqlx::query!(
        r#"SELECT $1::date::timestamp AT TIME ZONE $2 AS "begin!", ($1::date + 1)::timestamp AT TIME ZONE $2 AS "end!""#,
        date,
        time_zone
    );
    let bounds = bounds.fetch_one(pool).await?;
    Ok((bounds.begin, bounds.end))
}

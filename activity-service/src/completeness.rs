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
        SELECT source, topic, announced_to, counted_to, unannounced, oldest_unannounced_at, failed,
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

/// The offset of the last announcement that is known.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn told_offset(pool: &Pool) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!("SELECT max(told_offset) FROM sources").fetch_one(pool).await
}

/// Writes down what a source tells.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn note(
    pool: &Pool,
    announcement: &Announcement,
    topic: &str,
    offset: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        INSERT INTO sources AS known (source, topic, announced_to, unannounced, oldest_unannounced_at, failed, told_offset,
            discarded, since)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (source) DO UPDATE SET topic = excluded.topic,
            announced_to = greatest(known.announced_to, excluded.announced_to), unannounced = excluded.unannounced,
            oldest_unannounced_at = excluded.oldest_unannounced_at, failed = excluded.failed,
            discarded = excluded.discarded, told_at = now(),
            told_offset = excluded.told_offset, since = coalesce(excluded.since, known.since)
        -- Not what is only read again. On a topic that was made anew offsets begin again.
        WHERE known.told_offset < excluded.told_offset OR known.announced_to < excluded.announced_to
        "#,
        announcement.source,
        topic,
        announcement.announced_to,
        announcement.unannounced,
        announcement.oldest_unannounced_at,
        announcement.failed,
        offset,
        announcement.discarded,
        announcement.since
    )
    .execute(pool)
    .await?;
    let Some(counts) = &announcement.counts else { return Ok(()) };
    let quantities = serde_json::to_string(&counts.quantities).expect("texts and numbers are JSON");
    sqlx::query!(
        r#"
        WITH old AS (
            -- As long as a range of figures can be asked for.
            DELETE FROM source_minutes WHERE source = $1 AND minute < $2::timestamptz - interval '400 days'
        )
        INSERT INTO source_minutes AS known (source, minute, quantities) VALUES ($1, $2, $3::text::jsonb)
        ON CONFLICT (source, minute) DO UPDATE SET quantities = excluded.quantities, checked_at = NULL
        WHERE known.quantities <> excluded.quantities
        "#,
        announcement.source,
        counts.from,
        quantities
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// What is to be read next of each partition: everything before is counted, or in quarantine.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn positions(pool: &Pool, topics: &[String]) -> Result<BTreeMap<Partition, i64>, sqlx::Error> {
    let rows =
        sqlx::query!("SELECT topic, partition, next_offset FROM consumer_positions WHERE topic = ANY ($1)", topics);
    Ok(rows
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(|row| (Partition::new(row.topic, row.partition), row.next_offset))
        .collect())
}

/// Everything that a source wrote up to this time is counted, or in quarantine.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn is_counted(pool: &Pool, source: &str, to: OffsetDateTime) -> Result<(), sqlx::Error> {
    let moving = sqlx::query!(
        "UPDATE sources SET counted_to = $2 WHERE source = $1 AND (counted_to IS NULL OR counted_to < $2)",
        source,
        to
    );
    moving.execute(pool).await.map(drop)
}

/// What the metrics tell of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Of what is complete, in seconds.
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
pub(crate) async fn differences(connection: &mut PgConnection) -> Result<Told, sqlx::Error> {
    sqlx::query_as!(
        Told,
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
            SELECT 'infinity', 0, 0, coalesce(sum(failed + discarded), 0) FROM sources
        ), so_far AS (
            SELECT more, less, sum(less) OVER later AS lost, sum(missing) OVER later AS missing
            FROM events WINDOW later AS (ORDER BY at DESC)
        )
        SELECT (SELECT EXTRACT(EPOCH FROM now() - min(coalesce(counted_to, announced_to)))::double precision FROM sources) AS age,
            (SELECT count(*) FROM sources WHERE told_at <= now() - $1::text::interval) AS "silent!",
            (SELECT count(*) FROM so_far WHERE more > 0 OR (less > 0 AND lost > missing))
                + (SELECT count(*) FROM differing_figures WHERE since <= now() - $2::text::interval) AS "differing!"
        "#,
        SILENT_AFTER,
        DIFFERS_FOR,
        check::AGAIN,
        CLOCKS_DIFFER_BY
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

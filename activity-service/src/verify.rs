//! `activity-service figures verify`: whether the figures are what the keys say, and what the sources say they wrote.
//! Reads only, in one snapshot, so that it may run beside services that count.

use std::{collections::BTreeMap, io::Write};

use shared::database::Pool;
use sqlx::PgConnection;
use time::{Date, format_description::BorrowedFormatItem, macros::format_description};

use crate::completeness;

/// Of one day and type.
#[derive(Debug)]
struct Line {
    date: Date,
    code: String,
    figure: i64,
    keys: i64,
    /// Some of the keys may be gone by now: then the figure may be more.
    is_purged: bool,
    /// What the sources wrote, where they have told it of the whole day and all of it is counted.
    told: Option<i64>,
}

/// A day as it is written.
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// A day like 2026-11-22.
///
/// # Errors
/// It is none.
pub fn parse_day(text: &str) -> Result<Date, String> {
    Date::parse(text, DAY).map_err(|_| "must be a day like 2026-11-22".into())
}

/// Prints a line for each day and type, and whether all are as they should be.
///
/// # Errors
/// The database's, or nothing takes what is printed.
pub async fn verify(
    pool: &Pool,
    (from, to): (Option<Date>, Option<Date>),
    (topics, time_zone): (&[String], &str),
) -> anyhow::Result<bool> {
    let all = completeness::of(pool, topics).await?;
    let mut snapshot = pool.begin().await?;
    // As long as it takes to read every key.
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *snapshot).await?;
    sqlx::query!("SET LOCAL statement_timeout = 0").execute(&mut *snapshot).await?;
    let missing = missing(&mut snapshot).await?;
    let complete = all.complete_to;
    let lines = lines(&mut snapshot, (from, to), topics, time_zone, complete).await?;
    snapshot.rollback().await?;
    let mut out = std::io::stdout().lock();
    let mut is_right = true;
    let mut days: BTreeMap<Date, bool> = BTreeMap::new();
    for line in &lines {
        let wrong = line.wrong(missing);
        is_right &= wrong.is_none();
        *days.entry(line.date).or_insert(true) &= wrong.is_none();
        let told = line.told.map_or_else(|| "-".to_owned(), |told| told.to_string());
        let verdict = wrong.unwrap_or("ok");
        writeln!(
            out,
            "{} {} figure {} keys {} written {told}: {verdict}",
            line.date, line.code, line.figure, line.keys
        )?;
    }
    let wrong = days.values().filter(|is_right| !**is_right).count();
    writeln!(out, "{} days, {wrong} of them wrong; in quarantine, in gaps or failed: {missing}", days.len())?;
    Ok(is_right)
}

impl Line {
    /// What is wrong with it, where at most `missing` messages of what was written cannot be in the figures.
    fn wrong(&self, missing: i64) -> Option<&'static str> {
        if self.figure < self.keys {
            Some("the figure is less than its keys")
        } else if self.figure > self.keys && !self.is_purged {
            Some("the figure is more than its keys")
        } else if self.told.is_some_and(|told| self.figure > told) {
            Some("more is counted than was written")
        } else if self.told.is_some_and(|told| self.figure + missing < told) {
            Some("less is counted than was written")
        } else {
            None
        }
    }
}

/// How many messages are in quarantine or were discarded, in open gaps, or failed: at most so many are in no figure.
async fn missing(snapshot: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let missing = sqlx::query_scalar!(
        r#"
        SELECT ((SELECT count(*) FROM quarantine WHERE state <> 'counted')
            + (SELECT coalesce(sum(to_offset - from_offset), 0) FROM consumption_gaps WHERE state <> 'closed')
            + (SELECT coalesce(sum(failed + discarded), 0) FROM sources))::bigint AS "missing!"
        "#
    );
    missing.fetch_one(snapshot).await
}

async fn lines(
    snapshot: &mut PgConnection,
    (from, to): (Option<Date>, Option<Date>),
    topics: &[String],
    time_zone: &str,
    complete_to: Option<time::OffsetDateTime>,
) -> Result<Vec<Line>, sqlx::Error> {
    sqlx::query_as!(
        Line,
        r#"
        WITH figures AS (
            SELECT activity_date, activity_type_code AS code, sum(quantity)::bigint AS quantity
            FROM daily_activity_shards
            WHERE activity_date BETWEEN coalesce($1, '-infinity'::date) AND coalesce($2, 'infinity'::date)
            GROUP BY 1, 2
        ), keys AS (
            SELECT activity_date, activity_type_code AS code, count(*) AS quantity
            FROM processed_messages
            WHERE activity_date BETWEEN coalesce($1, '-infinity'::date) AND coalesce($2, 'infinity'::date)
            GROUP BY 1, 2
        ), minutes AS (
            SELECT (m.minute AT TIME ZONE $4)::date AS activity_date, m.source, m.quantities
            FROM source_minutes m JOIN sources s USING (source)
            WHERE s.topic = ANY ($3)
        ), whole AS (
            SELECT activity_date FROM (
                SELECT activity_date, source, count(*) AS told FROM minutes GROUP BY 1, 2
            ) AS of_source
            WHERE (activity_date + 1)::timestamp AT TIME ZONE $4 <= $5
            GROUP BY activity_date
            HAVING bool_and(told = EXTRACT(EPOCH FROM (activity_date + 1)::timestamp AT TIME ZONE $4
                    - activity_date::timestamp AT TIME ZONE $4) / 60)
                AND count(*) = (SELECT count(*) FROM sources WHERE topic = ANY ($3))
        ), told AS (
            SELECT activity_date, one.key AS code, sum(one.value::bigint)::bigint AS quantity
            FROM minutes JOIN whole USING (activity_date) CROSS JOIN LATERAL jsonb_each_text(quantities) AS one
            WHERE activity_date BETWEEN coalesce($1, '-infinity'::date) AND coalesce($2, 'infinity'::date)
            GROUP BY 1, 2
        )
        SELECT activity_date AS "date!", code AS "code!", coalesce(f.quantity, 0) AS "figure!",
            coalesce(k.quantity, 0) AS "keys!",
            coalesce((SELECT activity_date <= newest_purged::date + 1 FROM key_horizon), false) AS "is_purged!",
            CASE WHEN w.activity_date IS NOT NULL THEN coalesce(t.quantity, 0) END AS told
        FROM figures f FULL JOIN keys k USING (activity_date, code) FULL JOIN told t USING (activity_date, code)
        LEFT JOIN whole w USING (activity_date)
        ORDER BY activity_date, code COLLATE "C"
        "#,
        from,
        to,
        topics,
        time_zone,
        complete_to
    )
    .fetch_all(snapshot)
    .await
}

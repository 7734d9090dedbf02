//! `activity-service figures verify`: whether the figures are what the keys say, and what the sources say they wrote.
//! Reads only, in one snapshot, so that it may run beside services that count; the keys one of their partitions at a time.

use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

use shared::runtime::{database::Pool, terminal};
use sqlx::PgConnection;
use time::{Date, format_description::BorrowedFormatItem, macros::format_description};
use uuid::Uuid;

use crate::{
    completeness::{self, CLOCKS_DIFFER_BY},
    key,
};

/// How often it is told how far it has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

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

/// What a line ends with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Right,
    /// It is what the keys say; of what was written the sources have not told, or not all, or not all of it is counted.
    Unknown,
    Wrong(&'static str),
}

/// Prints a line for each day and type, and whether none is found wrong: what is unknown is told, and is no mistake.
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
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *snapshot).await?;
    // Before the snapshot is taken: no partition that is in it goes while it is read.
    sqlx::query!("LOCK TABLE processed_messages IN ACCESS SHARE MODE").execute(&mut *snapshot).await?;
    // As long as it takes to read every key.
    sqlx::query!("SET LOCAL statement_timeout = 0").execute(&mut *snapshot).await?;
    let missing = missing(&mut snapshot, time_zone).await?;
    let complete = all.complete_to;
    let keys = keys(&mut snapshot, (from, to)).await?;
    let lines = lines(&mut snapshot, (from, to), topics, time_zone, (complete, &keys)).await?;
    snapshot.rollback().await?;
    let mut out = terminal::ToWhoeverReads(std::io::stdout().lock());
    let mut days: BTreeMap<Date, Verdict> = BTreeMap::new();
    for (line, verdict) in lines.iter().zip(verdicts(&lines, &missing)) {
        let of_day = days.entry(line.date).or_insert(verdict);
        *of_day = verdict.max(*of_day);
        let told = line.told.map_or_else(|| "-".to_owned(), |told| told.to_string());
        let verdict = match verdict {
            Verdict::Right => "ok",
            Verdict::Unknown => "unknown",
            Verdict::Wrong(how) => how,
        };
        writeln!(
            out,
            "{} {} figure {} keys {} written {told}: {verdict}",
            line.date, line.code, line.figure, line.keys
        )?;
    }
    let wrong = days.values().filter(|verdict| matches!(verdict, Verdict::Wrong(_))).count();
    let unknown = days.values().filter(|verdict| **verdict == Verdict::Unknown).count();
    let missing = missing.since(Date::MIN);
    writeln!(
        out,
        "{} days, {wrong} of them wrong, {unknown} unknown; in quarantine, in gaps or failed: {missing}",
        days.len()
    )?;
    Ok(wrong == 0)
}

/// What is missing is missing once: the newest day takes of it first, for whatever may be of a day may be of any before.
fn verdicts(lines: &[Line], missing: &Missing) -> Vec<Verdict> {
    let (mut taken, mut verdicts) = (0, Vec::with_capacity(lines.len()));
    for line in lines.iter().rev() {
        let verdict = line.verdict(missing.since(line.date) - taken);
        if verdict == Verdict::Right {
            taken += line.told.map_or(0, |told| (told - line.figure).max(0));
        }
        verdicts.push(verdict);
    }
    verdicts.reverse();
    verdicts
}

impl Line {
    /// Where at most `missing` messages of what was written cannot be in the figures.
    fn verdict(&self, missing: i64) -> Verdict {
        if self.figure < self.keys {
            return Verdict::Wrong("the figure is less than its keys");
        }
        if self.figure > self.keys && !self.is_purged {
            return Verdict::Wrong("the figure is more than its keys");
        }
        match self.told {
            Some(told) if self.figure > told => Verdict::Wrong("more is counted than was written"),
            Some(told) if self.figure + missing < told => Verdict::Wrong("less is counted than was written"),
            Some(_) => Verdict::Right,
            None => Verdict::Unknown,
        }
    }
}

/// Messages that are in quarantine or were discarded, in open gaps, or failed: at most so many are in no figure.
struct Missing {
    /// By the day on which they were received, or would have been; null of those that were not announced.
    by_day: Vec<(Option<Date>, i64)>,
}

impl Missing {
    /// Those that may be of this day: nothing is received before it is written.
    fn since(&self, date: Date) -> i64 {
        let may_be = |(day, _): &&(Option<Date>, i64)| day.is_none_or(|day| day >= date);
        self.by_day.iter().filter(may_be).map(|(_, messages)| messages).sum()
    }
}

async fn missing(snapshot: &mut PgConnection, time_zone: &str) -> Result<Missing, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        SELECT ((received_at + $2::text::interval) AT TIME ZONE $1)::date AS day, count(*) AS "messages!"
        FROM quarantine WHERE state <> 'counted' GROUP BY 1
        UNION ALL
        SELECT ((found_at + $2::text::interval) AT TIME ZONE $1)::date, to_offset - from_offset
        FROM consumption_gaps WHERE state <> 'closed'
        UNION ALL
        SELECT NULL, coalesce(sum(failed + tried_again + discarded), 0)::bigint FROM sources
        "#,
        time_zone,
        CLOCKS_DIFFER_BY
    );
    let rows = rows.fetch_all(snapshot).await?;
    Ok(Missing { by_day: rows.into_iter().map(|row| (row.day, row.messages)).collect() })
}

/// Days, codes and how many keys there are of both.
#[derive(Debug, Default)]
struct Keys {
    dates: Vec<Date>,
    codes: Vec<String>,
    quantities: Vec<i64>,
}

/// Counts the keys, and says on standard error how far it has come: there may be billions.
async fn keys(snapshot: &mut PgConnection, (from, to): (Option<Date>, Option<Date>)) -> Result<Keys, sqlx::Error> {
    let days = sqlx::query_scalar!(r#"SELECT day AS "day!" FROM key_days ORDER BY day"#);
    let mut parts = vec![(None, Uuid::nil(), Uuid::max())];
    for day in days.fetch_all(&mut *snapshot).await? {
        let end = key::begin(day.next_day().unwrap_or(day)).as_u128().saturating_sub(1);
        parts.push((Some(day), key::begin(day), Uuid::from_u128(end)));
    }
    let mut sums: BTreeMap<(Date, String), i64> = BTreeMap::new();
    let (mut read, mut told) = (0, Instant::now());
    // Planned with its values: each reads one partition.
    key::plan_with_values(snapshot).await?;
    for (day, first, last) in parts {
        let part = sqlx::query!(
            r#"
            SELECT activity_date, activity_type_code, count(*) AS "quantity!" FROM processed_messages
            WHERE undated = $1 AND message_ref BETWEEN $2 AND $3
                AND activity_date BETWEEN coalesce($4, '-infinity'::date) AND coalesce($5, 'infinity'::date)
            GROUP BY activity_date, activity_type_code
            "#,
            day.is_none(),
            first,
            last,
            from,
            to
        );
        for one in part.fetch_all(&mut *snapshot).await? {
            read += one.quantity;
            *sums.entry((one.activity_date, one.activity_type_code)).or_default() += one.quantity;
        }
        if let Some(day) = day.filter(|_| told.elapsed() >= PROGRESS_EVERY) {
            told = Instant::now();
            terminal::complain(format_args!("{read} keys read, those up to {day}"));
        }
    }
    let mut keys = Keys::default();
    for ((date, code), quantity) in sums {
        keys.dates.push(date);
        keys.codes.push(code);
        keys.quantities.push(quantity);
    }
    Ok(keys)
}

async fn lines(
    snapshot: &mut PgConnection,
    (from, to): (Option<Date>, Option<Date>),
    topics: &[String],
    time_zone: &str,
    (complete_to, keys): (Option<time::OffsetDateTime>, &Keys),
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
            SELECT * FROM UNNEST($6::date[], $7::text[], $8::bigint[]) AS k (activity_date, code, quantity)
        ), minutes AS (
            SELECT (m.minute AT TIME ZONE $4)::date AS activity_date, m.source, m.quantities
            FROM source_minutes m JOIN sources s USING (source)
            WHERE s.topic = ANY ($3)
        ), whole AS (
            SELECT activity_date FROM (
                SELECT activity_date, activity_date::timestamp AT TIME ZONE $4 AS begin,
                    (activity_date + 1)::timestamp AT TIME ZONE $4 AS "end"
                FROM (SELECT DISTINCT activity_date FROM minutes) AS days
            ) AS bounds
            WHERE "end" <= $5 AND NOT EXISTS (
                SELECT FROM sources s
                WHERE s.topic = ANY ($3) AND greatest(EXTRACT(EPOCH FROM "end" - greatest(begin, s.since)) / 60, 0) <> (
                    SELECT count(*) FROM source_minutes m
                    WHERE m.source = s.source AND m.minute >= begin AND m.minute < "end"
                )
            )
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
        complete_to,
        &keys.dates,
        &keys.codes,
        &keys.quantities
    )
    .fetch_all(snapshot)
    .await
}

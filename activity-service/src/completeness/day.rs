//! Whether the figures of a day are all: what the sources say they wrote on it, beside what was counted.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::{contract::message::ActivityTypeCode, runtime::database::Pool};
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;

use super::{Completeness, DIFFERS_FOR, bounds};
use crate::statistics;

time::serde::format_description!(iso_date, Date, "[year]-[month]-[day]");

/// Minutes that differ, at most so many of a day: the first ones tell where to look.
const DIFFERENCES: i64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Everything of the day is in its figures, and they are what the sources wrote.
    Complete,
    /// The day is not over.
    Open,
    /// The day is over, and something of it is missing, is in quarantine, failed, or was counted otherwise.
    Behind,
    /// The sources have not told enough.
    Unknown,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quantity {
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    #[schema(minimum = 0)]
    pub quantity: i64,
}

/// Where the sources say something else than was counted.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The minute; without one it is the whole day.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub minute: Option<OffsetDateTime>,
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    #[schema(minimum = 0)]
    pub expected: i64,
    #[schema(minimum = 0)]
    pub counted: i64,
}

/// What came after the day was complete.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Late {
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    #[schema(minimum = 1)]
    pub quantity: i64,
}

/// How complete the figures of a day are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Day {
    #[serde(with = "iso_date")]
    #[schema(value_type = String, format = Date)]
    pub activity_date: Date,
    pub state: State,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub complete_to: Option<OffsetDateTime>,
    /// What the sources say they wrote in the minutes of the day that are closed.
    pub expected: Vec<Quantity>,
    pub difference: Vec<Difference>,
    /// Messages that wait in quarantine, of this day or any other; 10001 means more than 10000.
    #[schema(minimum = 0)]
    pub quarantined: i64,
    pub late: Vec<Late>,
}

/// How complete the figures of a day are, given how far all are.
///
/// # Errors
/// The database does not answer.
pub async fn of_day(
    pool: &Pool,
    date: Date,
    (topics, time_zone): (&[String], &str),
    all: &Completeness,
) -> Result<Day, sqlx::Error> {
    let (begin, end) = bounds(pool, date, time_zone).await?;
    let told = told(pool, topics, (begin, end)).await?;
    let counted = statistics::between(pool, time_zone, (date, date), None).await?;
    let counted: BTreeMap<_, _> = counted.into_iter().map(|one| (one.activity_type_code, one.quantity)).collect();
    let mut difference = differing_minutes(pool, topics, (begin, end)).await?;
    let is_over = sqlx::query_scalar!(r#"SELECT $1::timestamptz <= now() AS "is_over!""#, end).fetch_one(pool).await?;
    let is_counted = all.complete_to.is_some_and(|to| to >= end);
    if is_counted && told.is_whole {
        difference.extend(of_the_whole_day(&told.quantities, &counted));
    } else {
        difference.extend(of_figures(pool, date).await?);
    }
    let is_clean = difference.is_empty()
        && (all.quarantined, all.open_gaps) == (0, 0)
        && all.sources.iter().all(|source| source.failed == 0);
    let state = match (all.complete_to, is_over) {
        (None, _) => State::Unknown,
        (Some(_), false) => State::Open,
        (Some(_), true) if !is_counted => State::Behind,
        (Some(_), true) if !told.is_whole => State::Unknown,
        (Some(_), true) if is_clean => State::Complete,
        (Some(_), true) => State::Behind,
    };
    let expected = told.quantities.into_iter();
    Ok(Day {
        activity_date: date,
        state,
        complete_to: all.complete_to,
        expected: expected.map(|(activity_type_code, quantity)| Quantity { activity_type_code, quantity }).collect(),
        difference,
        quarantined: all.quarantined,
        late: late(pool, date).await?,
    })
}

/// What the sources say of a day.
struct Told {
    quantities: BTreeMap<String, i64>,
    /// Of each minute each source has told, from when it began on.
    is_whole: bool,
}

async fn told(
    pool: &Pool,
    topics: &[String],
    (begin, end): (OffsetDateTime, OffsetDateTime),
) -> Result<Told, sqlx::Error> {
    let quantities = sqlx::query!(
        r#"
        SELECT one.key AS "code!", sum(one.value::bigint)::bigint AS "quantity!"
        FROM source_minutes m JOIN sources s USING (source) CROSS JOIN LATERAL jsonb_each_text(m.quantities) AS one
        WHERE m.minute >= $2 AND m.minute < $3 AND s.topic = ANY ($1)
        GROUP BY one.key
        "#,
        topics,
        begin,
        end
    );
    let quantities = quantities.fetch_all(pool).await?.into_iter().map(|row| (row.code, row.quantity)).collect();
    let is_whole = sqlx::query_scalar!(
        r#"
        SELECT coalesce(bool_and((
            SELECT count(*) FROM source_minutes m WHERE m.source = s.source AND m.minute >= $2 AND m.minute < $3
        ) = greatest(EXTRACT(EPOCH FROM $3::timestamptz - greatest($2, s.since)) / 60, 0)), false) AS "is_whole!"
        FROM sources s WHERE s.topic = ANY ($1)
        "#,
        topics,
        begin,
        end
    );
    Ok(Told { quantities, is_whole: is_whole.fetch_one(pool).await? })
}

fn of_the_whole_day(told: &BTreeMap<String, i64>, counted: &BTreeMap<String, i64>) -> Vec<Difference> {
    let codes: BTreeSet<&String> = told.keys().chain(counted.keys()).collect();
    let of = |quantities: &BTreeMap<String, i64>, code: &String| quantities.get(code).copied().unwrap_or(0);
    let differing = codes.into_iter().filter(|code| of(told, code) != of(counted, code));
    differing
        .map(|code| Difference {
            minute: None,
            activity_type_code: code.clone(),
            expected: of(told, code),
            counted: of(counted, code),
        })
        .collect()
}

/// Figures of a day that are not what was counted of its minutes up to now.
async fn of_figures(pool: &Pool, date: Date) -> Result<Vec<Difference>, sqlx::Error> {
    sqlx::query_as!(
        Difference,
        r#"
        SELECT NULL::timestamptz AS minute, activity_type_code, expected, counted FROM differing_figures
        WHERE activity_date = $1 AND since <= now() - $2::text::interval
        ORDER BY activity_type_code COLLATE "C"
        "#,
        date,
        DIFFERS_FOR
    )
    .fetch_all(pool)
    .await
}

async fn differing_minutes(
    pool: &Pool,
    topics: &[String],
    (begin, end): (OffsetDateTime, OffsetDateTime),
) -> Result<Vec<Difference>, sqlx::Error> {
    sqlx::query_as!(
        Difference,
        r#"
        SELECT minute AS "minute?", activity_type_code AS "activity_type_code!", expected AS "expected!",
            counted AS "counted!"
        FROM differing_minutes WHERE topic = ANY ($1) AND minute >= $2 AND minute < $3
        ORDER BY minute, activity_type_code COLLATE "C" LIMIT $4
        "#,
        topics,
        begin,
        end,
        DIFFERENCES
    )
    .fetch_all(pool)
    .await
}

/// By how much the figures of a day are more than when it was complete.
async fn late(pool: &Pool, date: Date) -> Result<Vec<Late>, sqlx::Error> {
    sqlx::query_as!(
        Late,
        r#"
        SELECT activity_type_code AS "activity_type_code!",
            quantity - coalesce((quantities ->> activity_type_code)::bigint, 0) AS "quantity!"
        FROM daily_activities JOIN complete_days USING (activity_date)
        WHERE activity_date = $1 AND quantity > coalesce((quantities ->> activity_type_code)::bigint, 0)
        ORDER BY activity_type_code COLLATE "C"
        "#,
        date
    )
    .fetch_all(pool)
    .await
}

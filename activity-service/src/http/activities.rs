//! Figures of a day or of a range of days.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header::CACHE_CONTROL},
    web::Data,
};
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    contract::message::ActivityTypeCode,
    web::{
        http::{Operation, Parameter, path_parameter, read, schema},
        problem::{Problem, Violation},
        query::Query,
    },
};
use time::{Date, Month};
use utoipa::PartialSchema;

use super::Api;
use crate::statistics::{self, ActivitySummary, HourSummary};

/// The longest range, in days.
pub(super) const MAX_DAYS: i64 = 400;
/// The same, by hour.
const MAX_DAYS_OF_HOURS: i64 = 31;

pub(super) fn operations() -> [Operation; 3] {
    // One text: generated clients cannot put a choice of schemas into a path.
    let day_or_today = schema::matching("^([0-9]{4}-[0-9]{2}-[0-9]{2}|today)$", "2026-11-22");
    let bound = |name, description| Parameter::query(name, description, schema::formatted("date")).required();
    let code = "Figures of this type only.";
    [
        Operation::new(Method::GET, "/activities/{date}", "activity:read", day)
            .named(
                "figuresOfDay",
                "The figures of one day",
                "Nothing where nothing was counted. 304 where `If-None-Match` has the `ETag` of now.",
            )
            .parameter(Parameter::path(
                "date",
                "A day of the business time zone; `today` is the one it is now.",
                day_or_today,
            ))
            .answers_list::<ActivitySummary>("The figures, by type.", json!([summary()])),
        Operation::new(Method::GET, "/activities", "activity:read", range)
            .named(
                "figuresOfRange",
                "The figures of a range of days",
                "At most 400 days. 304 where `If-None-Match` has the `ETag` of now.",
            )
            .parameter(bound("from", "The first day."))
            .parameter(bound("to", "The last day."))
            .parameter(Parameter::query("activityTypeCode", code, ActivityTypeCode::schema()))
            .answers_list::<ActivitySummary>("The figures, by day and type.", json!([summary()]))
            .problems(&[422]),
        Operation::new(Method::GET, "/activities/hourly", "activity:read", hourly)
            .named(
                "figuresByHour",
                "The figures of the hours of a range of days",
                "Hours of UTC, of days of UTC; at most 31 days. An hour without activities is left out. What was counted \
                 before the service kept hours has none: of such a day the hours are less than its figure. 304 where \
                 `If-None-Match` has the `ETag` of now.",
            )
            .parameter(bound("from", "The first day, of UTC."))
            .parameter(bound("to", "The last day, of UTC."))
            .parameter(Parameter::query("activityTypeCode", code, ActivityTypeCode::schema()))
            .answers_list::<HourSummary>("The figures, by hour and type.", json!([hour_summary()]))
            .problems(&[422]),
    ]
}

fn hour_summary() -> Value {
    json!({
        "hour": "2026-11-22T14:00:00Z",
        "activityTypeCode": "ORDER_CREATED",
        "activityTypeName": "Order Created",
        "quantity": 87,
    })
}

fn summary() -> Value {
    json!({
        "activityDate": "2026-11-22",
        "activityTypeCode": "ORDER_CREATED",
        "activityTypeName": "Order Created",
        "quantity": 1234,
        "lastCountedAt": "2026-11-22T14:03:07.123456Z",
        "lateQuantity": 0,
        "missingQuantity": 0,
    })
}

/// # Errors
/// 400 where the path names no day; 503.
async fn day(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    Query::parse(request.query_string(), &[])?;
    let figures = match day_of_path(&request)? {
        None => read(statistics::of_today(&api.pool, &api.time_zone)).await,
        Some(day) => read(statistics::between(&api.pool, &api.time_zone, (day, day), None)).await,
    };
    figures.map(told)
}

/// A caller may keep it, and asks each time whether it has changed.
fn told<T: Serialize>(figures: Vec<T>) -> HttpResponse {
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "private, no-cache")).json(figures)
}

/// The day that the path names; none where it is today.
///
/// # Errors
/// 400 where it names no day.
pub(super) fn day_of_path(request: &HttpRequest) -> Result<Option<Date>, Problem> {
    let not_a_date = || Problem::bad_request("The path must name a day as YYYY-MM-DD, or today.");
    match path_parameter(request).map_err(|_| not_a_date())?.as_str() {
        "today" => Ok(None),
        text => date(text).map(Some).ok_or_else(not_a_date),
    }
}

/// # Errors
/// 400 where the query cannot be read, 422 where the range is no range or too long; 503.
async fn range(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let ((from, to), code) = range_of(&request, &["activityTypeCode"], MAX_DAYS)?;
    read(statistics::between(&api.pool, &api.time_zone, (from, to), code.as_ref().map(ActivityTypeCode::as_str)))
        .await
        .map(told)
}

/// # Errors
/// As for a range of days.
async fn hourly(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let ((from, to), code) = range_of(&request, &["activityTypeCode"], MAX_DAYS_OF_HOURS)?;
    read(statistics::by_hour(&api.pool, from, to, code.as_ref().map(ActivityTypeCode::as_str))).await.map(told)
}

/// The days that the query of a request names, and the type of activities, where it may name one.
///
/// # Errors
/// 400 where the query cannot be read, 422 where the range is no range or longer than so many days.
pub(super) fn range_of(
    request: &HttpRequest,
    others: &[&str],
    max_days: i64,
) -> Result<((Date, Date), Option<ActivityTypeCode>), Problem> {
    let mut query = Query::parse(request.query_string(), &[&["from", "to"], others].concat())?;
    let from = required_date(&mut query, "from")?;
    let to = required_date(&mut query, "to")?;
    let code = query.get("activityTypeCode", "a code like ORDER_CREATED", ActivityTypeCode::parse)?;
    let violation = |detail: String| Problem::unprocessable(vec![Violation::new("/to", detail)]);
    match (to - from).whole_days() + 1 {
        ..1 => Err(violation("This must not be before from.".into())),
        days if days > max_days => Err(violation(format!("The range must not be longer than {max_days} days."))),
        _ => Ok(((from, to), code)),
    }
}

fn required_date(query: &mut Query, name: &str) -> Result<Date, Problem> {
    query
        .get(name, "a date like 2026-11-22", date)?
        .ok_or_else(|| Problem::bad_request(format!("The query parameter {name} is required.")))
}

/// `YYYY-MM-DD` and nothing else; a day that exists.
fn date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        part.parse::<u16>().ok()
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year.into(), month, u8::try_from(day).ok()?).ok()?;
    parts.next().is_none().then_some(date)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_days_that_exist_are_dates() {
        for good in ["2026-11-22", "2024-02-29", "0000-01-01", "9999-12-31"] {
            assert!(date(good).is_some(), "{good}");
        }
        for bad in [
            "2026-13-01",
            "2026-02-30",
            "2025-02-29",
            "20261122",
            "2026-1-1",
            "2026-11-22-1",
            "2026-11-22T00:00:00Z",
            "+026-11-22",
            "-026-11-22",
            "2026-11-2২",
            "",
            "today",
            "2026-11-22 ",
        ] {
            assert!(date(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_day_is_read_as_it_is_written(day in 1_721_060i32..5_373_485) {
            let day = Date::from_julian_day(day).unwrap();
            prop_assert_eq!(date(&day.to_string()), Some(day));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            date(&text);
        }
    }
}

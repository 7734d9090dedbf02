//! Figures by hour of UTC: hours are the same for everybody, whatever zone ends the business day.

use serde::Serialize;
use shared::{contract::message::ActivityTypeCode, runtime::database::Pool};
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;

/// How many activities there were in an hour.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HourSummary {
    /// When the hour begins.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub hour: OffsetDateTime,
    /// The type, as messages name it.
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    /// The type, for people.
    pub activity_type_name: String,
    /// How many were counted in the hour.
    #[schema(minimum = 0)]
    pub quantity: i64,
}

/// The figures of the hours from the first to the last day of UTC, both included, by hour and code.
///
/// # Errors
/// The database does not answer.
pub async fn by_hour(pool: &Pool, from: Date, to: Date, code: Option<&str>) -> Result<Vec<HourSummary>, sqlx::Error> {
    sqlx::query_as!(
        HourSummary,
        r#"
        SELECT hour AS "hour!", activity_type_code AS "activity_type_code!", activity_type_name AS "activity_type_name!",
            sum(quantity)::bigint AS "quantity!"
        FROM hourly_activity_shards JOIN activity_types USING (activity_type_code)
        WHERE hour >= $1::date::timestamp AT TIME ZONE 'UTC' AND hour < ($2::date + 1)::timestamp AT TIME ZONE 'UTC'
            AND ($3::text IS NULL OR activity_type_code = $3)
        GROUP BY hour, activity_type_code, activity_type_name
        -- Codes are ASCII: in the same order on every server.
        ORDER BY hour, activity_type_code COLLATE "C"
        "#,
        from,
        to,
        code,
    )
    .fetch_all(pool)
    .await
}

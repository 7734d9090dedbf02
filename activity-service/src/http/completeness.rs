//! How far the figures can be trusted.

use actix_web::{
    HttpRequest,
    http::{Method, StatusCode},
    web::{Data, Json},
};
use serde_json::{Value, json};
use shared::web::{
    http::{Operation, Parameter, read, schema},
    problem::Problem,
    query::Query,
};

use super::{Api, activities};
use crate::{
    completeness::{self, Completeness, Day},
    statistics,
};

pub(super) fn operations() -> [Operation; 2] {
    // One text: generated clients cannot put a choice of schemas into a path.
    let day_or_today = schema::matching("^([0-9]{4}-[0-9]{2}-[0-9]{2}|today)$", "2026-11-22");
    [
        Operation::new(Method::GET, "/completeness", "activity:read", all)
            .named(
                "completeness",
                "How far the figures are complete",
                "Up to `completeTo` every activity is in the figures, in quarantine, or could not be sent. A source that \
                 is silent makes it stand still, and is named.",
            )
            .answers::<Completeness>(StatusCode::OK, "As it is now.", &[], example()),
        Operation::new(Method::GET, "/activities/{date}/completeness", "activity:read", day)
            .named(
                "completenessOfDay",
                "Whether the figures of one day are all",
                "What the sources say they wrote on that day, beside what was counted.",
            )
            .parameter(Parameter::path(
                "date",
                "A day of the business time zone; `today` is the one it is now.",
                day_or_today,
            ))
            .answers::<Day>(StatusCode::OK, "As it is now.", &[], example_of_day()),
    ]
}

fn example() -> Value {
    json!({
        "completeTo": "2026-11-22T14:03:07.000000Z",
        "freshnessSeconds": 0.8,
        "quarantined": 0,
        "openGaps": 0,
        "sources": [{
            "source": "/order-service",
            "topic": "summarisation.order",
            "announcedTo": "2026-11-22T14:03:07.000000Z",
            "countedTo": "2026-11-22T14:03:07.000000Z",
            "unannounced": 0,
            "oldestUnannouncedAt": null,
            "failed": 0,
            "silentSince": null,
        }],
    })
}

fn example_of_day() -> Value {
    json!({
        "activityDate": "2026-11-21",
        "state": "complete",
        "completeTo": "2026-11-22T14:03:07.000000Z",
        "expected": [{ "activityTypeCode": "ORDER_CREATED", "quantity": 1234 }],
        "difference": [],
        "quarantined": 0,
        "late": [],
    })
}

/// # Errors
/// 503.
async fn all(request: HttpRequest, api: Data<Api>) -> Result<Json<Completeness>, Problem> {
    Query::parse(request.query_string(), &[])?;
    read(completeness::of(&api.pool, &api.topics)).await.map(Json)
}

/// # Errors
/// 400 where the path names no day; 503.
async fn day(request: HttpRequest, api: Data<Api>) -> Result<Json<Day>, Problem> {
    Query::parse(request.query_string(), &[])?;
    let named = activities::day_of_path(&request)?;
    let found = async {
        let date = match named {
            Some(date) => date,
            None => statistics::today(&api.pool, &api.time_zone).await?,
        };
        let all = completeness::of(&api.pool, &api.topics).await?;
        completeness::of_day(&api.pool, date, (&api.topics, &api.time_zone), &all).await
    };
    read(found).await.map(Json)
}

//! Types of activities: told, registered and renamed.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Json, Payload},
};
use serde::Deserialize;
use serde_json::json;
use shared::{
    http::{path_parameter, read},
    json::{self, Object},
    message::ActivityTypeCode,
    problem::{Problem, Violation},
    query::Query,
};

use super::{ACTOR, Api, quarantine::to_the_end};
use crate::{
    registration::{self, TypeName},
    statistics::{self, ActivityType},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Registration {
    activity_type_name: String,
}

/// # Errors
/// 400 for any parameter; 503.
pub async fn list(request: HttpRequest, api: Data<Api>) -> Result<Json<Vec<ActivityType>>, Problem> {
    Query::parse(request.query_string(), &[])?;
    read(statistics::types(&api.pool)).await.map(Json)
}

/// # Errors
/// 404 where the path names no code; 400 and 422 where the body cannot be read; 503, and then a part
/// of what waited may be counted already: the same request again counts the rest.
pub async fn register(request: HttpRequest, body: Payload, api: Data<Api>) -> Result<HttpResponse, Problem> {
    Query::parse(request.query_string(), &[])?;
    let code = ActivityTypeCode::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    let Object(body) = json::body::<Object<Registration>>(&request, body).await?;
    fail::fail_point!("http::handler", |text| panic!("{text:?}"));
    let name = TypeName::parse(&body.activity_type_name)
        .ok_or_else(|| Problem::unprocessable(vec![Violation::new("/activityTypeName", TypeName::RULE)]))?;
    let is_new = read(registration::register(&api.pool, &code, &name)).await?;
    let waiting = registration::waiting_for(&api.pool, code, is_new, &api.time_zone, ACTOR);
    let done = to_the_end(waiting).await?;
    let mut response = if is_new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(response.json(json!({ "counted": done.counted, "duplicates": done.duplicates })))
}

//! Types of activities: told, registered and renamed.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::{Data, Json, Payload},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::{
    contract::message::ActivityTypeCode,
    operators::audit::Author,
    web::{
        auth::Caller,
        http::{Operation, Parameter, path_parameter, read},
        json::{self, Object},
        problem::{Problem, Violation},
        query::Query,
    },
};

use utoipa::{PartialSchema, ToSchema};

use super::{Api, quarantine::to_the_end};
use crate::{
    registration::{self, TypeName},
    statistics::{self, ActivityType},
};

pub(super) fn operations() -> [Operation; 2] {
    let code = Parameter::path("code", "How messages name it.", ActivityTypeCode::schema());
    let counted = json!({ "counted": 3, "duplicates": 0 });
    [
        Operation::new(Method::GET, "/activity-types", "activity:read", list)
            .named("listActivityTypes", "The types that are known, by code", "")
            .answers_list::<ActivityType>(
                "The types.",
                json!([{ "activityTypeCode": "ORDER_CREATED", "activityTypeName": "Order Created" }]),
            ),
        Operation::new(Method::PUT, "/activity-types/{code}", "operations", register)
            .named(
                "registerActivityType",
                "Register a type, or rename it",
                "Messages that waited for the type are counted. After a 503 a part of them may be counted already: the \
                 same request again counts the rest.",
            )
            .parameter(code)
            .body::<Registration>(json!({ "activityTypeName": "Order Eaten" }))
            .answers::<Registered>(StatusCode::CREATED, "The type is new.", &[], counted.clone())
            .answers::<Registered>(StatusCode::OK, "The type was known.", &[], counted)
            .problems(&[404]),
    ]
}

/// The name that people read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Registration {
    /// 1 to 200 visible characters.
    #[schema(value_type = TypeName)]
    activity_type_name: String,
}

/// What became of the messages that waited for the type.
#[derive(Debug, Serialize, ToSchema)]
struct Registered {
    /// How many of them are counted now.
    counted: u64,
    /// How many had been counted already.
    duplicates: u64,
}

/// # Errors
/// 400 for any parameter; 503.
async fn list(request: HttpRequest, api: Data<Api>) -> Result<Json<Vec<ActivityType>>, Problem> {
    Query::parse(request.query_string(), &[])?;
    read(statistics::types(&api.pool)).await.map(Json)
}

/// # Errors
/// 404 where the path names no code; 400 and 422 where the body cannot be read; 503, and then a part
/// of what waited may be counted already: the same request again counts the rest.
async fn register(
    request: HttpRequest,
    body: Payload,
    api: Data<Api>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    Query::parse(request.query_string(), &[])?;
    let code = ActivityTypeCode::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    let Object(body) = json::body::<Object<Registration>>(&request, body).await?;
    fail::fail_point!("http::handler", |text| panic!("{text:?}"));
    let name = TypeName::parse(&body.activity_type_name)
        .ok_or_else(|| Problem::unprocessable(vec![Violation::new("/activityTypeName", TypeName::RULE)]))?;
    let author = Author::of_request(&request, &caller);
    let is_new = read(registration::register(&api.pool, &code, &name, &author)).await?;
    let mut waiting = registration::waiting_for(&api.pool, code, is_new, &api.time_zone, &author);
    let done = to_the_end(&mut waiting).await?;
    let mut response = if is_new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(response.json(Registered { counted: done.counted, duplicates: done.duplicates }))
}

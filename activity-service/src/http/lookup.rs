//! What became of one message, for operators.

use actix_web::{
    HttpRequest,
    http::{Method, StatusCode},
    web::{Data, Json},
};
use serde_json::json;
use shared::web::{
    http::{Operation, Parameter, path_parameter, read, schema},
    problem::Problem,
    query::Query,
};
use uuid::Uuid;

use super::Api;
use crate::lookup::{self, Lookup};

pub(super) fn operations() -> [Operation; 1] {
    let place = json!({ "topic": "summarisation.order", "partition": 3, "offset": 57 });
    [Operation::new(Method::GET, "/admin/activities/{messageRef}", "operations", find)
        .named(
            "findActivity",
            "What became of one message",
            "Where and when it was counted, its copies, or its quarantine. 404 where nothing is known of it, or no more.",
        )
        .parameter(Parameter::path("messageRef", "The reference that its sender gave it.", schema::formatted("uuid")))
        .answers::<Lookup>(
            StatusCode::OK,
            "What is known.",
            &[],
            json!({
                "messageRef": "0192f0c2-0000-7000-8000-000000000001",
                "counted": {
                    "activityTypeCode": "ORDER_CREATED",
                    "activityAt": "2026-11-22T17:04:05.123456Z",
                    "activityDate": "2026-11-22",
                    "countedAt": "2026-11-22T17:04:05.323456Z",
                    "topic": "summarisation.order",
                    "partition": 3,
                    "offset": 42,
                    "copies": [place],
                },
                "quarantined": [],
            }),
        )
        .problems(&[404])]
}

/// # Errors
/// 400 for any parameter; 404; 503.
async fn find(request: HttpRequest, api: Data<Api>) -> Result<Json<Lookup>, Problem> {
    Query::none(request.query_string())?;
    let message_ref = Uuid::try_parse(&path_parameter(&request)?).map_err(|_| Problem::not_found())?;
    read(lookup::find(&api.pool, message_ref)).await?.map(Json).ok_or_else(Problem::not_found)
}

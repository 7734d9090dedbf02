//! Gaps in what was read, for operators. They are closed from the command line.

use actix_web::{
    HttpRequest,
    http::Method,
    web::{Data, Json},
};
use serde_json::json;
use shared::web::{
    http::{Operation, read},
    problem::Problem,
    query::Query,
};

use super::Api;
use crate::gaps::{self, Gap, GapState};

/// Each is a loss that somebody looks after: more than these are looked after from the command line.
const MOST: i64 = 100;

pub(super) fn operations() -> [Operation; 1] {
    let gap = json!({
        "id": 7, "topic": "summarisation.order", "partition": 3, "from": 42, "to": 57,
        "foundAt": "2026-11-22T17:04:05.123456Z", "state": "open"
    });
    [Operation::new(Method::GET, "/admin/gaps", "operations", list)
        .named(
            "listGaps",
            "Open gaps in what was read, oldest first",
            "Messages that were deleted from a topic before they were read: from the offset `from` on, and before `to`. At \
             most 100. `activity-service gaps` lists all, and closes them.",
        )
        .answers_list::<Gap>("The gaps.", json!([gap]))]
}

/// # Errors
/// 400 for any parameter; 503.
async fn list(request: HttpRequest, api: Data<Api>) -> Result<Json<Vec<Gap>>, Problem> {
    Query::none(request.query_string())?;
    read(gaps::list(&api.pool, GapState::Open, MOST)).await.map(Json)
}

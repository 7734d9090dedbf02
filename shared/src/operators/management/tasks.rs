//! The background tasks, for the page of operators: what the probes tell of them on the management port.

use actix_web::{
    http::Method,
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    runtime::health::{Health, Report},
    web::http::Operation,
};

/// `GET /admin/tasks`
#[must_use]
pub fn operation() -> Operation {
    let task = json!({
        "name": "retention", "state": "working", "since": "2026-11-22T14:03:07.000000Z",
        "lastSuccess": "2026-11-22T14:13:07.000000Z", "lastError": null, "busyForSeconds": 0
    });
    Operation::new(Method::GET, "/admin/tasks", "operations", tasks)
        .named(
            "listTasks",
            "The background tasks",
            "Those of the instance that answers, as `/health/ready` tells of them.",
        )
        .answers_list::<Task>("As they are now.", json!([task]))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackgroundTask)]
struct Task {
    name: &'static str,
    #[serde(flatten)]
    report: Report,
}

async fn tasks(health: Data<Health>) -> Json<Vec<Task>> {
    Json(health.reports().into_iter().map(|(name, report)| Task { name, report }).collect())
}

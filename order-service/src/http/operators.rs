//! What operators see beside messages: an order's way, who publishes, who did what.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{Data, Json, Payload},
};
use outbox::instance::publishing::{self, Publishing};
use serde_json::json;
use shared::{
    operators::{
        audit::{self, Author},
        pause::{self, Pause, Wanted},
    },
    runtime::database::Pool,
    web::{
        auth::Caller,
        http::{Operation, Parameter, path_parameter, read, schema},
        paging,
        problem::Problem,
        query::Query,
    },
};

use crate::{messages::history::Event, order::OrderRef, timeline};

pub(super) fn operations() -> impl IntoIterator<Item = Operation> {
    let either_case = schema::matching("^[Oo][Ss][0-9]{6,19}-[Oo][Rr][Dd]$", "OS000042-ORD");
    let message = "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718";
    let pauses = pause::documented(
        [
            Operation::new(Method::GET, "/admin/pause", "operations", find_pause),
            Operation::new(Method::PUT, "/admin/pause", "operations", begin_pause),
            Operation::new(Method::DELETE, "/admin/pause", "operations", end_pause),
        ],
        "announcing",
    );
    let looks = [
        Operation::new(Method::GET, "/admin/orders/{orderRef}/timeline", "operations", of_order)
            .named("orderTimeline", "What happened to an order and its messages, oldest first", "")
            .parameter(Parameter::path("orderRef", "In upper or lower case.", either_case))
            .answers_list::<Event>(
                "What happened.",
                json!([
                    { "at": "2026-11-22T17:04:05.123456Z", "event": "placed" },
                    { "at": "2026-11-22T17:04:05.123456Z", "event": "written", "messageRef": message,
                        "activityTypeCode": "ORDER_CREATED", "by": "instance 1876543210987654" },
                    { "at": "2026-11-22T17:04:05.140211Z", "event": "acknowledged", "messageRef": message, "partition": 3,
                        "offset": 42 },
                ]),
            )
            .problems(&[404]),
        Operation::new(Method::GET, "/admin/instances", "operations", instances)
            .named("listInstances", "Who publishes now, and since when", "Every log that is not done, the newest first.")
            .answers_list::<Publishing>(
                "Those that publish, and those whose logs are still to be sent.",
                json!([{
                    "instance": 1_876_543_210_987_654_i64, "state": "publishing", "startedAt": "2026-11-22T17:00:00.000000Z",
                    "endedAt": null, "adoptedBy": null, "adopted": [], "unpublished": 3
                }]),
            ),
        audit::documented(Operation::new(Method::GET, "/admin/audit", "operations", list_audit)),
    ];
    looks.into_iter().chain(pauses)
}

async fn find_pause(request: HttpRequest, pool: Data<Pool>) -> Result<Json<Pause>, Problem> {
    Query::none(request.query_string())?;
    read(crate::pause::find(&pool)).await.map(Json)
}

async fn begin_pause(
    request: HttpRequest,
    body: Payload,
    pool: Data<Pool>,
    caller: Caller,
) -> Result<Json<Pause>, Problem> {
    Query::none(request.query_string())?;
    let wanted = Wanted::of(&request, body).await?;
    read(crate::pause::begin(&pool, &wanted, &Author::of_request(&request, &caller))).await.map(Json)
}

async fn end_pause(request: HttpRequest, pool: Data<Pool>, caller: Caller) -> Result<Json<Pause>, Problem> {
    Query::none(request.query_string())?;
    read(crate::pause::end(&pool, &Author::of_request(&request, &caller))).await?;
    Ok(Json(Pause::default()))
}

async fn of_order(request: HttpRequest, pool: Data<Pool>) -> Result<Json<Vec<Event>>, Problem> {
    Query::none(request.query_string())?;
    let order_ref = OrderRef::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    read(timeline::of_order(&pool, order_ref)).await?.map(Json).ok_or_else(Problem::not_found)
}

async fn instances(request: HttpRequest, pool: Data<Pool>) -> Result<Json<Vec<Publishing>>, Problem> {
    Query::none(request.query_string())?;
    read(publishing::list(&pool)).await.map(Json)
}

async fn list_audit(request: HttpRequest, pool: Data<Pool>) -> Result<HttpResponse, Problem> {
    let page = audit::Page::parse(request.query_string())?;
    let (entries, next) = read(crate::audit::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &entries, next))
}

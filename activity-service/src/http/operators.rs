//! What operators see beside the quarantine, and the pause.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{Data, Json, Payload},
};
use shared::{
    operators::{
        audit::{self, Author},
        pause::{self, Pause, Wanted},
    },
    web::{
        auth::Caller,
        http::{Operation, read},
        paging,
        problem::Problem,
        query::Query,
    },
};

use super::Api;

pub(super) fn operations() -> impl IntoIterator<Item = Operation> {
    let audit = audit::documented(Operation::new(Method::GET, "/admin/audit", "operations", list_audit));
    let pauses = pause::documented(
        [
            Operation::new(Method::GET, "/admin/pause", "operations", find_pause),
            Operation::new(Method::PUT, "/admin/pause", "operations", begin_pause),
            Operation::new(Method::DELETE, "/admin/pause", "operations", end_pause),
        ],
        "counting",
    );
    std::iter::once(audit).chain(pauses)
}

/// # Errors
/// 400 and 422 where the query cannot be read; 503.
async fn list_audit(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let page = audit::Page::parse(request.query_string())?;
    let (entries, next) = read(crate::audit::list(&api.pool, &page)).await?;
    Ok(paging::respond(&request, &entries, next))
}

/// # Errors
/// 503.
async fn find_pause(request: HttpRequest, api: Data<Api>) -> Result<Json<Pause>, Problem> {
    Query::none(request.query_string())?;
    read(crate::pause::find(&api.pool)).await.map(Json)
}

/// # Errors
/// 400 and 422 where the body cannot be read; 503.
async fn begin_pause(
    request: HttpRequest,
    body: Payload,
    api: Data<Api>,
    caller: Caller,
) -> Result<Json<Pause>, Problem> {
    Query::none(request.query_string())?;
    let wanted = Wanted::of(&request, body).await?;
    read(crate::pause::begin(&api.pool, &wanted, &Author::of_request(&request, &caller))).await.map(Json)
}

/// # Errors
/// 503.
async fn end_pause(request: HttpRequest, api: Data<Api>, caller: Caller) -> Result<Json<Pause>, Problem> {
    Query::none(request.query_string())?;
    read(crate::pause::end(&api.pool, &Author::of_request(&request, &caller))).await?;
    Ok(Json(Pause::default()))
}

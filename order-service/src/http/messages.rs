//! The outbox as operators see it.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::Data,
};
use serde_json::{Value, json};
use shared::{
    database::Pool,
    http::{Operation, Parameter, path_parameter, read, schema},
    paging,
    problem::Problem,
    query::Query,
};
use uuid::Uuid;

use crate::messages::{self, OutboxMessage, Page, Retried, Retry, State};

pub(super) fn operations() -> [Operation; 4] {
    let message_ref = || Parameter::path("messageRef", "The message's own name.", schema::formatted("uuid"));
    [
        Operation::new(Method::GET, "/admin/messages", "operations", list)
            .named("listMessages", "Messages of one state, newest first", "")
            .parameter(Parameter::query("state", "Only these; `failed` if absent.", State::schema()))
            .answers_page::<OutboxMessage>("A page.", json!([message("failed")])),
        Operation::new(Method::GET, "/admin/messages/{messageRef}", "operations", find)
            .named("findMessage", "One message", "")
            .parameter(message_ref())
            .answers::<OutboxMessage>(StatusCode::OK, "The message.", &[], message("published"))
            .problems(&[404]),
        Operation::new(Method::POST, "/admin/messages/{messageRef}/retry", "operations", retry)
            .named(
                "retryMessage",
                "Send a failed message again",
                "Its failures are forgotten. 409 unless it is failed.",
            )
            .parameter(message_ref())
            .answers::<OutboxMessage>(StatusCode::ACCEPTED, "The message will be sent.", &[], message("unpublished"))
            .problems(&[404, 409]),
        Operation::new(Method::POST, "/admin/messages/retry", "operations", retry_all)
            .named("retryMessages", "Send every failed message again", "")
            .answers::<Retried>(StatusCode::ACCEPTED, "They will be sent.", &[], json!({ "retried": 3 })),
    ]
}

fn message(state: &str) -> Value {
    let published = (state == "published").then_some(());
    let failed = (state == "failed").then_some(());
    json!({
        "messageRef": "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718",
        "activityTypeCode": "ORDER_CREATED",
        "orderRef": "OS000042-ORD",
        "placedAt": "2026-11-22T17:04:05.123456Z",
        "state": state,
        "failures": failed.map_or(0, |()| 10),
        "lastError": failed.map(|()| "the broker refuses the message: message size too large"),
        "publishedAt": published.map(|()| "2026-11-22T17:04:05.140211Z"),
        "partition": published.map(|()| 3),
        "offset": published.map(|()| 42),
    })
}

async fn list(request: HttpRequest, pool: Data<Pool>) -> Result<HttpResponse, Problem> {
    let page = Page::parse(request.query_string())?;
    let (messages, next) = read(messages::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &messages, next))
}

async fn find(request: HttpRequest, pool: Data<Pool>) -> Result<HttpResponse, Problem> {
    let message_ref = message_ref(&request)?;
    let message = read(messages::find(&pool, message_ref)).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(message))
}

async fn retry(request: HttpRequest, pool: Data<Pool>) -> Result<HttpResponse, Problem> {
    match read(messages::retry(&pool, message_ref(&request)?)).await? {
        Retry::Accepted(message) => Ok(HttpResponse::Accepted().json(message)),
        Retry::NotFailed => Err(Problem::conflict("Only a failed message can be sent again.")),
        Retry::Unknown => Err(Problem::not_found()),
    }
}

async fn retry_all(request: HttpRequest, pool: Data<Pool>) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let retried = read(messages::retry_all(&pool)).await?;
    Ok(HttpResponse::Accepted().json(Retried { retried }))
}

fn message_ref(request: &HttpRequest) -> Result<Uuid, Problem> {
    Query::none(request.query_string())?;
    Uuid::try_parse(&path_parameter(request)?).map_err(|_| Problem::not_found())
}

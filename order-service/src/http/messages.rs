//! The outbox as operators see it.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use shared::{
    http::{path_parameter, read},
    paging,
    problem::Problem,
    query::Query,
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::messages::{self, Page, Retry};

pub(super) async fn list(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let page = Page::parse(request.query_string())?;
    let (messages, next) = read(messages::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &messages, next))
}

pub(super) async fn find(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let message_ref = message_ref(&request)?;
    let message = read(messages::find(&pool, message_ref)).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(message))
}

pub(super) async fn retry(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    match read(messages::retry(&pool, message_ref(&request)?)).await? {
        Retry::Accepted(message) => Ok(HttpResponse::Accepted().json(message)),
        Retry::NotFailed => Err(Problem::conflict("Only a failed message can be sent again.")),
        Retry::Unknown => Err(Problem::not_found()),
    }
}

pub(super) async fn retry_all(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let retried = read(messages::retry_all(&pool)).await?;
    Ok(HttpResponse::Accepted().json(json!({ "retried": retried })))
}

fn message_ref(request: &HttpRequest) -> Result<Uuid, Problem> {
    Query::none(request.query_string())?;
    Uuid::try_parse(&path_parameter(request)?).map_err(|_| Problem::not_found())
}

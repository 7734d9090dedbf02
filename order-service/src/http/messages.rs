//! The outbox as operators see it.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::json;
use shared::{
    http::{path_parameter, read},
    paging,
    problem::Problem,
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::messages::{self, OutboxMessage, Page, Retry};

pub(super) async fn list(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let page = Page::parse(request.query_string())?;
    let (messages, next) = read(messages::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &messages, next))
}

pub(super) async fn find(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(known(&pool, message_ref(&request)?).await?))
}

pub(super) async fn retry(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let message_ref = message_ref(&request)?;
    match read(messages::retry(&pool, message_ref)).await? {
        Retry::Accepted => Ok(HttpResponse::Accepted().json(known(&pool, message_ref).await?)),
        Retry::NotFailed => Err(Problem::conflict("Only a failed message can be sent again.")),
        Retry::Unknown => Err(Problem::not_found()),
    }
}

pub(super) async fn retry_all(pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let retried = read(messages::retry_all(&pool)).await?;
    Ok(HttpResponse::Accepted().json(json!({ "retried": retried })))
}

async fn known(pool: &PgPool, message_ref: Uuid) -> Result<OutboxMessage, Problem> {
    read(messages::find(pool, message_ref)).await?.ok_or_else(Problem::not_found)
}

fn message_ref(request: &HttpRequest) -> Result<Uuid, Problem> {
    Uuid::try_parse(&path_parameter(request)?).map_err(|_| Problem::not_found())
}

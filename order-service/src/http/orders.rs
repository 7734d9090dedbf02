//! Orders: placed and read.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::LOCATION,
    web::{Data, Payload},
};
use shared::{
    http::{path_parameter, read},
    json::{self, Object},
    paging,
    problem::Problem,
    query::Query,
};
use sqlx::PgPool;

use crate::{
    order::{self, NewOrder, NewOrderBody, OrderRef, Page},
    placement::{PlaceError, Placement},
    trace::TraceContext,
};

pub(super) async fn place(
    request: HttpRequest,
    body: Payload,
    placement: Data<Placement>,
) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let Object(body) = json::body::<Object<NewOrderBody>>(&request, body).await?;
    fail::fail_point!("http::handler", |text| panic!("{text:?}"));
    let order = NewOrder::parse(&body).map_err(Problem::unprocessable)?;
    let placed = placement.place(order, TraceContext::of(request.headers())).await?;
    let location = format!("/orders/{}", placed.summary.order_ref);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(placed))
}

pub(super) async fn find(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let order_ref = OrderRef::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    let order = read(order::find(&pool, order_ref)).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(order))
}

pub(super) async fn list(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let page = Page::parse(request.query_string(), None)?;
    let (orders, next) = read(order::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &orders, next))
}

pub(super) async fn list_of_customer(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let customer_ref = path_parameter(&request)?;
    let page = Page::parse(request.query_string(), Some(customer_ref))?;
    let (orders, next) = read(order::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &orders, next))
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Unavailable => Self::unavailable(),
            refused @ PlaceError::Refused(_) => Self::internal(refused),
        }
    }
}

//! Orders: placed and read.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header::LOCATION},
    web::{Data, Payload},
};
use serde_json::{Value, json};
use shared::{
    http::{Operation, Parameter, path_parameter, read, schema},
    json::{self, Object},
    paging,
    problem::Problem,
    query::Query,
};
use sqlx::PgPool;

use crate::{
    order::{self, NewOrder, NewOrderBody, Order, OrderRef, OrderSummary, Page},
    placement::{PlaceError, Placement},
    trace::TraceContext,
};

pub(super) fn operations() -> [Operation; 4] {
    let order_ref = || {
        let either_case = schema::matching("^[Oo][Ss][0-9]{6,19}-[Oo][Rr][Dd]$", "OS000042-ORD");
        Parameter::path("orderRef", "In upper or lower case.", either_case)
    };
    [
        Operation::new(Method::POST, "/orders", "orders:write", place)
            .named("placeOrder", "Place an order", "")
            .body::<NewOrderBody>(json!({ "customerRef": "C-1001", "orderItems": [item()] }))
            .answers::<Order>(
                StatusCode::CREATED,
                "The order, which is stored and will be announced.",
                &[("Location", "Where the order is: `/orders/{orderRef}`.")],
                order(),
            ),
        Operation::new(Method::GET, "/orders", "orders:read", list)
            .named("listOrders", "Orders, newest first", "")
            .parameter(Parameter::query("customerRef", "Orders of this customer only.", schema::text()))
            .parameters(Page::parameters())
            .answers_page::<OrderSummary>("A page.", json!([summary()])),
        Operation::new(Method::GET, "/orders/customer/{customerRef}", "orders:read", list_of_customer)
            .named("listOrdersOfCustomer", "Orders of one customer, newest first", "An unknown customer has none.")
            .parameter(Parameter::path("customerRef", "Who ordered.", schema::text()))
            .parameters(Page::parameters())
            .answers_page::<OrderSummary>("A page.", json!([summary()]))
            .problems(&[404]),
        Operation::new(Method::GET, "/orders/{orderRef}", "orders:read", find)
            .named("findOrder", "One order", "")
            .parameter(order_ref())
            .answers::<Order>(StatusCode::OK, "The order.", &[], order())
            .problems(&[404]),
    ]
}

fn item() -> Value {
    json!({ "productId": "0192f0c1-7a5e-7000-8000-000000000001", "quantity": 2 })
}

fn summary() -> Value {
    json!({
        "orderRef": "OS000042-ORD",
        "customerRef": "C-1001",
        "numberOfItems": 1,
        "statusName": "New",
        "placedAt": "2026-11-22T17:04:05.123456Z",
    })
}

fn order() -> Value {
    let mut order = summary();
    order["orderItems"] = json!([item()]);
    order
}

async fn place(request: HttpRequest, body: Payload, placement: Data<Placement>) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let Object(body) = json::body::<Object<NewOrderBody>>(&request, body).await?;
    fail::fail_point!("http::handler", |text| panic!("{text:?}"));
    let order = NewOrder::parse(&body).map_err(Problem::unprocessable)?;
    let placed = placement.place(order, TraceContext::of(request.headers())).await?;
    let location = format!("/orders/{}", placed.summary.order_ref);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(placed))
}

async fn find(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let order_ref = OrderRef::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    let order = read(order::find(&pool, order_ref)).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(order))
}

async fn list(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let page = Page::parse(request.query_string(), None)?;
    let (orders, next) = read(order::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &orders, next))
}

async fn list_of_customer(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
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

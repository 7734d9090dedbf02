//! Orders: placed, read, completed and cancelled.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header::LOCATION},
    web::{Data, Payload},
};
use serde_json::{Value, json};
use shared::{
    operators::audit::Author,
    runtime::{
        database::Pool,
        traces::{self, TraceContext},
    },
    web::{
        auth::Caller,
        http::{DATABASE_PATIENCE, Operation, Parameter, location, path_parameter, read, schema},
        json::{self, Object},
        paging,
        problem::{Problem, ProblemKind, Violation},
        query::Query,
    },
};
use tokio::time::timeout;

use crate::{
    change::{Change, ChangeError, ChangeRequest, Changes},
    idempotency::{self, Key},
    order::{self, NewOrder, NewOrderBody, Order, OrderPage, OrderRef, OrderSummary},
    placement::{PlaceError, PlaceRequest, Placement},
};

const KEYS: &str = "Under an `Idempotency-Key` the same request of the same caller gives the same order and the same \
    answer for 7 days, and another request is 422. While the first one is still running the second waits for it, at most \
    2 s, and is 409 then. Only 201 is remembered.";
/// Bare, or quoted as RFC 9651 has it.
const KEY_PATTERN: &str = r#"^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#;

pub(super) fn operations() -> [Operation; 6] {
    let order_ref = || {
        let either_case = schema::matching("^[Oo][Ss][0-9]{6,19}-[Oo][Rr][Dd]$", "OS000042-ORD");
        Parameter::path("orderRef", "In upper or lower case.", either_case)
    };
    let key = schema::matching(KEY_PATTERN, "5f9d1c1e-0a35-4d6e-9d2b-2f0f5a0b7c11");
    [
        Operation::new(Method::POST, "/orders", "orders:write", place)
            .named("placeOrder", "Place an order", KEYS)
            .parameter(Parameter::header("Idempotency-Key", "The caller's name for this order.", key))
            .body::<NewOrderBody>(json!({ "customerRef": "C-1001", "orderItems": [item()] }))
            .answers::<Order>(
                StatusCode::CREATED,
                "The order, which is stored and will be announced.",
                &[
                    (
                        "Location",
                        "Where the order is: `/orders/{orderRef}`, behind `http.public_url` where that is set.",
                    ),
                    ("Idempotency-Replayed", "`true`, where the order was placed by an earlier request under its key."),
                ],
                order("New"),
            )
            .problems(&[409]),
        Operation::new(Method::GET, "/orders", "orders:read", list)
            .named("listOrders", "Orders, newest first", "")
            .parameter(Parameter::query("customerRef", "Orders of this customer only.", schema::text()))
            .parameters(OrderPage::parameters())
            .answers_page::<OrderSummary>("A page.", json!([summary("New")])),
        Operation::new(Method::GET, "/orders/customer/{customerRef}", "orders:read", list_of_customer)
            .named("listOrdersOfCustomer", "Orders of one customer, newest first", "An unknown customer has none.")
            .parameter(Parameter::path("customerRef", "Who ordered.", schema::text()))
            .parameters(OrderPage::parameters())
            .answers_page::<OrderSummary>("A page.", json!([summary("New")]))
            .problems(&[404]),
        Operation::new(Method::GET, "/orders/{orderRef}", "orders:read", find)
            .named("findOrder", "One order", "")
            .parameter(order_ref())
            .answers::<Order>(StatusCode::OK, "The order.", &[], order("New"))
            .problems(&[404]),
        Operation::new(Method::POST, "/orders/{orderRef}/complete", "operations", complete)
            .named("completeOrder", "Complete an order", "Repeating it changes nothing. 409 if it is cancelled.")
            .parameter(order_ref())
            .answers::<Order>(StatusCode::OK, "The order, which is fulfilled now.", &[], order("Fulfilled"))
            .problems(&[404, 409]),
        Operation::new(Method::POST, "/orders/{orderRef}/cancel", "orders:write", cancel)
            .named("cancelOrder", "Cancel an order", "Repeating it changes nothing. 409 if it is fulfilled.")
            .parameter(order_ref())
            .answers::<Order>(StatusCode::OK, "The order, which is cancelled now.", &[], order("Cancelled"))
            .problems(&[404, 409]),
    ]
}

fn item() -> Value {
    json!({ "productId": "0192f0c1-7a5e-7000-8000-000000000001", "quantity": 2 })
}

fn summary(status: &str) -> Value {
    json!({
        "orderRef": "OS000042-ORD",
        "customerRef": "C-1001",
        "numberOfItems": 1,
        "statusName": status,
        "placedAt": "2026-11-22T17:04:05.123456Z",
    })
}

fn order(status: &str) -> Value {
    let mut order = summary(status);
    order["orderItems"] = json!([item()]);
    order
}

async fn place(
    request: HttpRequest,
    body: Payload,
    placement: Data<Placement>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let key = key_of(&request, &caller)?;
    let Object(body) = json::body::<Object<NewOrderBody>>(&request, body).await?;
    fail::fail_point!("http::handler", |text| panic!("{text:?}"));
    let order = NewOrder::parse(&body).map_err(Problem::unprocessable)?;
    if caller.customer()?.is_some_and(|own| own != order.customer_ref()) {
        return Err(Problem::forbidden("The token is for the orders of another customer."));
    }
    let trace = TraceContext::of_request(&request);
    let placed = traces::step(&request, "place order", placement.place(PlaceRequest { order, key, trace })).await?;
    let order_ref = &placed.order.summary.order_ref;
    // Within the span of the request: from its id somebody gets to the order.
    tracing::debug!(order.r#ref = %order_ref, replayed = placed.replayed, "an order was placed");
    let mut response = HttpResponse::Created();
    response.insert_header((LOCATION, location(&request, &format!("/orders/{order_ref}"))));
    if placed.replayed {
        response.insert_header(("idempotency-replayed", "true"));
    }
    Ok(response.json(placed.order))
}

/// The key that comes with a request, if one does.
///
/// # Errors
/// 400 where it is malformed or there are several.
fn key_of(request: &HttpRequest, caller: &Caller) -> Result<Option<Key>, Problem> {
    let mut values = request.headers().get_all("idempotency-key");
    let Some(first) = values.next() else { return Ok(None) };
    let key = Key::parse(first.as_bytes(), caller).filter(|_| values.next().is_none());
    let most = idempotency::MAX_LENGTH;
    let rule = || format!("There must be one Idempotency-Key, of 1 to {most} visible ASCII characters.");
    key.map(Some).ok_or_else(|| Problem::bad_request(rule()))
}

async fn find(request: HttpRequest, pool: Data<Pool>, caller: Caller) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let order_ref = OrderRef::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    let order = read(order::find(&pool, order_ref, caller.customer()?)).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(order))
}

async fn list(request: HttpRequest, pool: Data<Pool>, caller: Caller) -> Result<HttpResponse, Problem> {
    let page = OrderPage::parse(request.query_string(), None, caller.customer()?.cloned())?;
    let (orders, next) = read(order::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &orders, next))
}

async fn list_of_customer(request: HttpRequest, pool: Data<Pool>, caller: Caller) -> Result<HttpResponse, Problem> {
    let customer_ref = path_parameter(&request)?;
    let page = OrderPage::parse(request.query_string(), Some(customer_ref), caller.customer()?.cloned())?;
    let (orders, next) = read(order::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &orders, next))
}

async fn complete(
    request: HttpRequest,
    pool: Data<Pool>,
    changes: Data<Changes>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    change(Change::Complete, &request, &pool, &changes, caller).await
}

async fn cancel(
    request: HttpRequest,
    pool: Data<Pool>,
    changes: Data<Changes>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    change(Change::Cancel, &request, &pool, &changes, caller).await
}

async fn change(
    change: Change,
    request: &HttpRequest,
    pool: &Pool,
    changes: &Changes,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    Query::none(request.query_string())?;
    let order_ref = OrderRef::parse(&path_parameter(request)?).ok_or_else(Problem::not_found)?;
    let (author, trace) = (Author::of_request(request, &caller), TraceContext::of_request(request));
    let customer_ref = caller.customer()?.cloned();
    let changed = async {
        changes.make(ChangeRequest { change, order_ref, customer_ref: customer_ref.clone(), trace, author }).await?;
        Ok::<_, Problem>(order::find(pool, order_ref, customer_ref.as_ref()).await?)
    };
    let order = timeout(DATABASE_PATIENCE, changed).await.unwrap_or_else(|_| Err(Problem::unavailable()))?;
    let order = order.ok_or_else(Problem::not_found)?;
    tracing::debug!(order.r#ref = %order_ref, status = %order.summary.status_name, "an order was to be changed");
    if order.summary.status_name != change.status() {
        return Err(Problem::conflict(format!("The order is {}.", order.summary.status_name)));
    }
    Ok(HttpResponse::Ok().json(order))
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unavailable => Self::unavailable(),
            refused @ ChangeError::Refused(_) => Self::internal(refused),
        }
    }
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Unavailable => Self::unavailable(),
            PlaceError::KeyInUse => Self::conflict("A request with this Idempotency-Key is still running.")
                .of_kind(ProblemKind::IdempotencyKeyInUse)
                .retry_after(Duration::from_secs(1)),
            PlaceError::KeyOfAnother => {
                Self::unprocessable(vec![Violation::new("", "This Idempotency-Key belongs to another request.")])
                    .of_kind(ProblemKind::IdempotencyKeyReused)
            }
            refused @ PlaceError::Refused(_) => Self::internal(refused),
        }
    }
}

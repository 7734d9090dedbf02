//! The API: what a caller sends is parsed here, once; what leaves is made here.

use std::fmt::Write;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{LINK, LOCATION},
    web::{self, Data, Payload, ServiceConfig},
};
use shared::{
    http::{only, path_parameter, read},
    json::{self, Object},
    problem::Problem,
};
use sqlx::PgPool;

use crate::{
    order::{self, NewOrder, NewOrderBody, OrderRef, Page},
    placement::{PlaceError, Placement},
    trace::TraceContext,
};

/// The routes of the API port.
pub fn routes(pool: PgPool, placement: Placement) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let (pool, placement) = (Data::new(pool), Data::new(placement));
    move |routes| {
        routes
            .app_data(pool.clone())
            .app_data(placement.clone())
            .service(web::resource("/orders").post(place).get(list).default_service(only("GET, POST")))
            .service(
                web::resource("/orders/customer/{customer_ref}").get(list_of_customer).default_service(only("GET")),
            )
            .service(web::resource("/orders/{order_ref}").get(find).default_service(only("GET")));
    }
}

async fn place(request: HttpRequest, body: Payload, placement: Data<Placement>) -> Result<HttpResponse, Problem> {
    let Object(body) = json::body::<Object<NewOrderBody>>(&request, body).await?;
    let order = NewOrder::parse(&body).map_err(Problem::unprocessable)?;
    let placed = placement.place(order, TraceContext::of(request.headers())).await?;
    let location = format!("/orders/{}", placed.summary.order_ref);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(placed))
}

async fn find(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let order_ref = OrderRef::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    let order = read(order::find(&pool, order_ref)).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(order))
}

async fn list(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    page_of(&request, Page::parse(request.query_string(), None)?, &pool).await
}

async fn list_of_customer(request: HttpRequest, pool: Data<PgPool>) -> Result<HttpResponse, Problem> {
    let customer_ref = path_parameter(&request)?;
    page_of(&request, Page::parse(request.query_string(), Some(customer_ref))?, &pool).await
}

/// One page, with a link to the next: the same request with the cursor of where this page ends.
async fn page_of(request: &HttpRequest, page: Page, pool: &PgPool) -> Result<HttpResponse, Problem> {
    let (orders, next) = read(order::list(pool, &page)).await?;
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = next {
        let kept = request.query_string().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let mut link = kept.fold(format!("<{}?", request.path()), |link, pair| link + pair + "&");
        write!(link, "cursor={cursor}>; rel=\"next\"").expect("a String takes every write");
        response.insert_header((LINK, link));
    }
    Ok(response.json(orders))
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Unavailable => Self::unavailable(),
            refused @ PlaceError::Refused(_) => Self::internal(refused),
        }
    }
}

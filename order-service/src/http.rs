//! The API: what a caller sends is parsed here, once; what leaves is made here.

mod customers;
mod messages;
mod operators;
mod orders;
mod overview;
pub mod pages;
mod queries;

use actix_web::web::{Data, ServiceConfig};
use shared::{
    operators::management::{exposition::Exposition, tasks},
    runtime::{database::Pool, health::Health},
    web::{
        http::{Api, Shares},
        pages::Pages,
    },
};

use crate::{change::Changes, format, placement::Placement};

const DESCRIPTION: &str = "Takes orders and announces each one. Errors are `application/problem+json`; a method that a \
    path does not have is 405 with `Allow`. A 503 or a lost answer to a `POST` leaves open whether it was done: ask again, \
    an order under its `Idempotency-Key`.";

/// Every operation of the API port.
#[must_use]
pub fn api() -> Api {
    Api::new("order-service", DESCRIPTION)
        .section("orders", "Orders: placed, read, completed and cancelled.", orders::operations())
        .section("messages", "The outbox, for operators.", messages::operations())
        .section("customers", "What is known of them, forgotten.", customers::operations())
        .section("operators", "An order's way, who publishes, who did what; pausing.", operators::operations())
        .section("overview", "How the outbox is doing.", overview::operations().into_iter().chain([tasks::operation()]))
        .channel(format::channel())
}

/// The routes of the API port.
pub fn routes(
    pool: Pool,
    placement: Placement,
    changes: Changes,
    exposition: Exposition,
    health: Health,
    pages: Option<Pages>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let shares = Data::new(Shares::of(&pool));
    let (pool, placement, changes) = (Data::new(pool), Data::new(placement), Data::new(changes));
    let (exposition, health, api) = (Data::new(exposition), Data::new(health), api().routes());
    move |routes| {
        routes.app_data(pool.clone()).app_data(placement.clone()).app_data(changes.clone()).app_data(shares.clone());
        routes.app_data(exposition.clone()).app_data(health.clone());
        // First: where there is a page at the root, it is what callers find there.
        if let Some(pages) = &pages {
            pages.routes(routes);
        }
        api(routes);
    }
}

//! The API: figures, types and the quarantine.

mod activities;
mod activity_types;
mod completeness;
mod gaps;
mod lookup;
mod operators;
mod overview;
mod pages;
pub mod quarantine;
mod stream;

use std::sync::Arc;

use actix_web::web::{Data, ServiceConfig};
use serde_json::Value;
use shared::{
    operators::management::{exposition::Exposition, tasks},
    runtime::{database::Pool, health::Health},
    web::{http::Shares, pages::Settings},
};

use crate::{activity, live::Live};

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Api {
    pub pool: Pool,
    pub time_zone: String,
    /// Of which the figures are to be complete.
    pub topics: Vec<String>,
    pub live: Arc<Live>,
}

const DESCRIPTION: &str = "Counts what other services announce, each activity once, and tells the figures of each day. \
    Errors are `application/problem+json`; a method that a path does not have is 405 with `Allow`.";

/// Every operation of the API port.
#[must_use]
pub fn api() -> shared::web::http::Api {
    shared::web::http::Api::new("activity-service", DESCRIPTION)
        .section(
            "activities",
            "Figures by day and type.",
            activities::operations().into_iter().chain([stream::operation()]),
        )
        .section("completeness", "How far the figures can be trusted.", completeness::operations())
        .section("activity types", "What is counted.", activity_types::operations())
        .section("quarantine", "Messages that could not be counted, for operators.", quarantine::operations())
        .section("gaps", "Messages that were lost before they were read, for operators.", gaps::operations())
        .section("operators", "Who did what.", operators::operations())
        .section("messages", "What became of one message, for operators.", lookup::operations())
        .section("overview", "How counting is doing.", overview::operations().into_iter().chain([tasks::operation()]))
        .channel(activity::channel())
}

/// The routes of the API port.
pub fn routes(
    with: Api,
    exposition: Exposition,
    health: Health,
    pages: &Settings,
    scopes: Option<&Value>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let pages = pages::of(pages, &with.time_zone, scopes);
    let shares = Data::new(Shares::of(&with.pool));
    let (with, exposition, api) = (Data::new(with), Data::new(exposition), api().routes());
    let health = Data::new(health);
    move |routes| {
        routes.app_data(with.clone()).app_data(exposition.clone()).app_data(health.clone()).app_data(shares.clone());
        // First: where there is a page at the root, it is what callers find there.
        if let Some(pages) = &pages {
            pages.routes(routes);
        }
        api(routes);
    }
}

//! The API: figures, types and the quarantine.

mod activities;
mod activity_types;
mod lookup;
mod operators;
pub mod quarantine;

use actix_web::web::{Data, ServiceConfig};
use shared::database::Pool;

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Api {
    pub pool: Pool,
    pub time_zone: String,
}

const DESCRIPTION: &str = "Counts what other services announce, each activity once, and tells the figures of each day. \
    Errors are `application/problem+json`; a method that a path does not have is 405 with `Allow`.";

/// Every operation of the API port.
#[must_use]
pub fn api() -> shared::http::Api {
    shared::http::Api::new("activity-service", DESCRIPTION)
        .section("activities", "Figures by day and type.", activities::operations())
        .section("activity types", "What is counted.", activity_types::operations())
        .section("quarantine", "Messages that could not be counted, for operators.", quarantine::operations())
        .section("operators", "Who did what.", operators::operations())
        .section("messages", "What became of one message, for operators.", lookup::operations())
}

/// The routes of the API port.
pub fn routes(with: Api) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let (with, api) = (Data::new(with), api().routes());
    move |routes| {
        routes.app_data(with.clone());
        api(routes);
    }
}

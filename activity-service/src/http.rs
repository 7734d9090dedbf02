//! The API: figures and types, read only.

pub mod activities;
pub mod activity_types;

use actix_web::web::{self, Data, ServiceConfig};
use shared::http::only;
use sqlx::PgPool;

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct Api {
    pub pool: PgPool,
    pub time_zone: String,
}

/// The routes of the API port.
pub fn routes(api: Api) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let api = Data::new(api);
    move |routes| {
        routes
            .app_data(api.clone())
            .service(web::resource("/activities").get(activities::range).default_service(only("GET")))
            .service(web::resource("/activities/{date}").get(activities::day).default_service(only("GET")))
            .service(web::resource("/activity-types").get(activity_types::list).default_service(only("GET")));
    }
}

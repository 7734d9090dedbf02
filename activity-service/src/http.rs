//! The API: figures, types and the quarantine.

pub mod activities;
pub mod activity_types;
pub mod quarantine;

use actix_web::web::{self, Data, ServiceConfig};
use shared::http::only;
use sqlx::PgPool;

/// Who did it, where nobody has to say who he is.
const ACTOR: &str = "anonymous";

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
        let resource = web::resource::<&str>;
        routes
            .app_data(api.clone())
            .service(resource("/activities").get(activities::range).default_service(only("GET")))
            .service(resource("/activities/{date}").get(activities::day).default_service(only("GET")))
            .service(resource("/activity-types").get(activity_types::list).default_service(only("GET")))
            .service(resource("/activity-types/{code}").put(activity_types::register).default_service(only("PUT")))
            .service(resource("/admin/quarantine").get(quarantine::list).default_service(only("GET")))
            .service(resource("/admin/quarantine/replay").post(quarantine::replay_all).default_service(only("POST")))
            .service(resource("/admin/quarantine/{id}/replay").post(quarantine::replay).default_service(only("POST")))
            .service(
                resource("/admin/quarantine/{id}")
                    .get(quarantine::find)
                    .delete(quarantine::discard)
                    .default_service(only("GET, DELETE")),
            );
    }
}

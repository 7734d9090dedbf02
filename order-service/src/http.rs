//! The API: what a caller sends is parsed here, once; what leaves is made here.

mod messages;
mod orders;

use actix_web::web::{self, Data, ServiceConfig};
use shared::http::only;
use sqlx::PgPool;

use crate::placement::Placement;

/// The routes of the API port.
pub fn routes(pool: PgPool, placement: Placement) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let (pool, placement) = (Data::new(pool), Data::new(placement));
    move |routes| {
        let resource = web::resource::<&str>;
        routes
            .app_data(pool.clone())
            .app_data(placement.clone())
            .service(resource("/orders").post(orders::place).get(orders::list).default_service(only("GET, POST")))
            .service(
                resource("/orders/customer/{customer_ref}").get(orders::list_of_customer).default_service(only("GET")),
            )
            .service(resource("/orders/{order_ref}").get(orders::find).default_service(only("GET")))
            .service(resource("/admin/messages").get(messages::list).default_service(only("GET")))
            .service(resource("/admin/messages/retry").post(messages::retry_all).default_service(only("POST")))
            .service(resource("/admin/messages/{message_ref}").get(messages::find).default_service(only("GET")))
            .service(
                resource("/admin/messages/{message_ref}/retry").post(messages::retry).default_service(only("POST")),
            );
    }
}

//! Which pages of other origins may use the API from a browser: none, unless configured. Those that may only
//! read are kept from more by [`super::browsers`].

use actix_cors::Cors;
use actix_web::{
    http::header::{HeaderName, VARY},
    middleware::Condition,
};

/// How long a browser need not ask again whether it may, in seconds.
const REMEMBERED: usize = 600;

pub(super) fn cors(allowed_origins: &[String], allowed_headers: &[String]) -> Condition<Cors> {
    let closed = Cors::default()
        .allowed_methods(["GET", "POST", "PUT", "DELETE"])
        .allowed_headers(allowed_headers)
        .expose_headers([
            "etag",
            "idempotency-replayed",
            "link",
            "location",
            "retry-after",
            "www-authenticate",
            "x-next-cursor",
            "x-request-id",
        ])
        .max_age(REMEMBERED);
    let open = allowed_origins.iter().fold(closed, |cors, origin| cors.allowed_origin(origin));
    Condition::new(!allowed_origins.is_empty(), open)
}

/// What [`cors`] adds to an answer.
pub(super) fn is_about_origins(name: &HeaderName) -> bool {
    name == VARY || name.as_str().starts_with("access-control-")
}

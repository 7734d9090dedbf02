//! What browsers are told about every answer, errors included.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// JSON needs nothing from anywhere, whoever frames or opens it.
const OF_DATA: &str = "default-src 'none'; frame-ancestors 'none'";
/// The documentation page brings its scripts along and asks this service only. Its styles and images are
/// partly written into the page.
const OF_DOCS: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// For the answer to a request of `path`.
pub(super) fn of(path: &str) -> [(HeaderName, &'static str); 4] {
    let policy = if path == "/docs" || path.starts_with("/docs/") { OF_DOCS } else { OF_DATA };
    [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, "no-referrer"),
    ]
}

/// Sets those that the answer has not set itself.
pub(super) fn set(headers: &mut HeaderMap, path: &str) {
    for (name, value) in of(path) {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

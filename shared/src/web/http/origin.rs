//! Origins, as browsers name them.

use actix_web::http::Uri;

/// `scheme://host` of a URL. None of one with a user: it would be shown.
pub(super) fn origin_of(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    uri.scheme().zip(authority).map(|(scheme, host)| format!("{scheme}://{host}"))
}

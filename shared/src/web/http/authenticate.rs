//! Which requests want a token, and who they are from.

use std::collections::BTreeSet;

use actix_web::{
    Error, HttpMessage,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};

use super::rate_limit;
use crate::web::auth::Authentication;

/// Paths of the pages for browsers, which are the same for everybody.
#[derive(Clone, Debug)]
pub(crate) struct WithoutToken(pub BTreeSet<String>);

/// With a request whose caller is not known: the connection ends with its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnedAway;

/// Lets only those requests through whose caller is known, and leaves the [`Caller`] with them.
///
/// # Errors
/// None of its own: only another middleware's.
pub(super) async fn authenticate(
    authentication: Data<Authentication>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if !is_public(request.path()) && !wants_none(&request) {
        match authentication.caller(request.headers()).await {
            Ok(caller) => drop(request.extensions_mut().insert(caller)),
            Err(problem) => {
                let problem = rate_limit::charge(&request).err().unwrap_or(problem);
                request.extensions_mut().insert(TurnedAway);
                return Ok(request.error_response(problem));
            }
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// The documents of the API. But for the pages everything else wants a token, what does not exist included.
fn is_public(path: &str) -> bool {
    ["/", "/openapi.json", "/asyncapi.json"].contains(&path) || path == "/docs" || path.starts_with("/docs/")
}

fn wants_none(request: &ServiceRequest) -> bool {
    request.app_data::<Data<WithoutToken>>().is_some_and(|paths| paths.0.contains(request.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_are_public_and_nothing_that_looks_like_them() {
        for path in ["/", "/openapi.json", "/asyncapi.json", "/docs", "/docs/", "/docs/index.html"] {
            assert!(is_public(path), "{path}");
        }
        for path in ["", "/orders", "/docs2", "/openapi.json/", "/Docs", "//docs", "/orders/docs", "/%64ocs"] {
            assert!(!is_public(path), "{path}");
        }
    }
}

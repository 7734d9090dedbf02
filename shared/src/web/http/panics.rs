//! A panic in a handler is one failed request and nothing else: it is caught here, and logged once,
//! with the request's id, by the hook.

use std::panic::AssertUnwindSafe;

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};
use futures_util::FutureExt;

use crate::web::problem::Problem;

/// Answers 500 where the handler panics.
///
/// # Errors
/// The handler's own, and the panic.
pub(super) async fn caught<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    // Nothing is seen again of what the handler has left half done: a transaction it held is rolled back.
    AssertUnwindSafe(next.call(request)).catch_unwind().await.unwrap_or_else(|_| Err(Problem::panicked().into()))
}

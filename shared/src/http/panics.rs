//! A panic in a handler is one failed request and nothing else: it is caught here, and logged once,
//! with the request's id, by the hook.

use std::panic::{AssertUnwindSafe, PanicHookInfo};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};
use futures_util::FutureExt;

use crate::{metrics::own::PANICS, problem::Problem};

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

/// Logs every panic of the process as one line, instead of some on standard error.
///
/// The text of a panic may quote what it stumbled over, so only the place is told at level error.
pub fn log() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        PANICS.add(1);
        let place = panic.location().map(ToString::to_string);
        tracing::error!("code.location" = place, "panicked");
        tracing::debug!(error = panic.payload_as_str(), "what the panic says");
    }));
}

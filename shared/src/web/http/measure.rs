//! How long requests take: after OpenTelemetry's conventions, by method, route and status.

use std::time::Instant;

use actix_web::{
    Error, HttpMessage,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::Next,
};
use metrics::{Gauge, SharedString};

use crate::runtime::{
    metrics::own::{HTTP_ACTIVE, HTTP_DURATION},
    traces::Trace,
};

/// What a caller sends must not make series: everything that is no route is one.
const NO_ROUTE: &str = "none";

/// # Errors
/// The handler's.
pub(super) async fn measured<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let begin = Instant::now();
    let _active = Active::new();
    let method = method(request.method());
    let route = request.match_pattern().map_or(SharedString::const_str(NO_ROUTE), SharedString::from_owned);
    let trace = Trace::begin(&request);
    request.extensions_mut().insert(trace.clone());
    let answer = next.call(request).await;
    let status = match &answer {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    trace.end(status.as_u16());
    record(method, route, status.as_u16()).record(begin.elapsed());
    answer
}

fn record(method: &'static str, route: SharedString, status: u16) -> metrics::Histogram {
    metrics::histogram!(
        HTTP_DURATION.name,
        "http_request_method" => method,
        "http_route" => route,
        "http_response_status_code" => status.to_string()
    )
}

/// Makes the series of a route before anybody asks for it: of its answers those when all is well, and
/// those that operators look for.
pub(super) fn expect(of: &Method, route: &'static str, statuses: impl Iterator<Item = u16>) {
    for status in statuses.filter(|status| matches!(status, 200..300 | 500..)) {
        drop(record(method(of), SharedString::const_str(route), status));
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

/// A request under way, whose handler may be dropped at any time.
struct Active(Gauge);

impl Active {
    fn new() -> Self {
        let gauge = metrics::gauge!(HTTP_ACTIVE.name);
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

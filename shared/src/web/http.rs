//! What every request of either service passes through, and the server around it.

mod address;
mod api;
mod authenticate;
mod browsers;
mod channel;
mod closing;
mod connection;
mod cors;
mod docs;
mod document;
mod encoding;
mod fixed;
mod measure;
mod operation;
mod origin;
mod panics;
mod parameter;
mod rate_limit;
mod refusal;
mod request_id;
mod security_headers;
mod server;
mod settings;
mod share;
mod sliced;
mod slots;
mod streamed;

use std::{fmt, rc::Rc, time::Duration};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError, Route,
    body::{self, BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method, StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
pub use api::Api;
pub(crate) use authenticate::WithoutToken;
pub use channel::{Channel, Direction, Header};
pub(crate) use fixed::Fixed;
pub use operation::Operation;
pub use parameter::Parameter;
pub use request_id::RequestId;
pub use server::{Port, Server, listen};
pub use settings::Settings;
pub use share::Shares;
use tracing::Instrument;

use self::{authenticate::TurnedAway, connection::Phase, encoding::Acceptable, sliced::Sliced, streamed::Streamed};
pub use crate::contract::schema;
use crate::{
    runtime::{lifecycle::Shutdown, traces::Trace},
    web::problem::Problem,
};

/// The longest a caller waits for the database before the answer is 503. The contract allows 3 s.
pub const DATABASE_PATIENCE: Duration = Duration::from_millis(2_500);

/// Gives the request its id and its log span, and turns every error into a problem.
///
/// # Errors
/// None of its own: only another middleware's.
pub async fn around(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = RequestId::of(&request);
    let path = request.path().to_owned();
    let trace = request.extensions().get::<Trace>().and_then(Trace::id);
    // An error: there at whatever level lines are written, so that each of them has the ids.
    let span = tracing::error_span!("request", "request.id" = %id, "trace.id" = trace, "http.request.method" = %request.method());
    // HEAD is answered wherever GET is, but for the body.
    let is_head = request.method() == Method::HEAD;
    if is_head {
        request.head_mut().method = Method::GET;
    }
    let asked = Acceptable::of(&request);
    let stopping = request.app_data::<web::Data<Shutdown>>().is_some_and(|shutdown| shutdown.is_requested());
    let phase = request.conn_data::<Rc<Phase>>().cloned();
    let _under_way = phase.as_ref().map(Phase::begin);
    request.extensions_mut().insert(id.clone());
    async {
        let response = match next.call(request).await {
            Ok(response) => response.map_into_boxed_body(),
            // The request is gone with the error, so this answer is made without it.
            Err(error) => return Err(Refused { problem: problem_of(&error), path, id, is_head }.into()),
        };
        let is_turned_away = response.request().extensions().contains::<TurnedAway>();
        let mut response = with_problem(response, &path, &id);
        stamp(response.headers_mut(), &path, &id);
        response = asked.pack(response).await;
        if is_head {
            // By the framework it would be sent where the next request is there already.
            response = response.map_body(|_, _| body::None::new().boxed());
        }
        if let (BodySize::Stream, Some(phase)) = (response.response().body().size(), &phase) {
            let under_way = phase.goes_on();
            response = response.map_body(|_, body| Streamed::new(body, under_way).boxed());
        }
        response = response.map_body(|_, body| Sliced::of(body));
        let is_wanted = phase.as_ref().is_some_and(|phase| phase.must_end());
        // Whoever has no token keeps no connection, and while stopping the caller's next request finds another
        // instance instead of a closed connection.
        if stopping || is_wanted || is_turned_away || response.status() == StatusCode::UNAUTHORIZED {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        Ok(response)
    }
    .instrument(span)
    .await
}

/// What every response carries.
fn stamp(headers: &mut HeaderMap, path: &str, id: &RequestId) {
    let value = HeaderValue::from_str(id.as_str()).expect("an id has header characters only");
    headers.insert(HeaderName::from_static("x-request-id"), value);
    security_headers::set(headers, path);
}

/// `http.public_url`, without a slash at its end.
#[derive(Clone, Debug)]
struct PublicUrl(Option<String>);

/// A request that ended in an error before it had a response.
#[derive(Debug)]
struct Refused {
    problem: Problem,
    path: String,
    id: RequestId,
    is_head: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl ResponseError for Refused {
    fn status_code(&self) -> StatusCode {
        self.problem.status_code()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = self.problem.to_response(&self.path, self.id.as_str());
        stamp(response.headers_mut(), &self.path, &self.id);
        if self.is_head { response.set_body(body::None::new().boxed()) } else { response }
    }
}

fn problem_of(error: &Error) -> Problem {
    let of_framework = || Problem::from_framework(error.as_response_error().status_code());
    let problem = error.as_error::<Problem>().cloned().unwrap_or_else(of_framework);
    if let Some(cause) = problem.cause() {
        tracing::error!(error = format!("{cause:#}"), "request failed");
    }
    problem
}

fn with_problem(response: ServiceResponse, path: &str, id: &RequestId) -> ServiceResponse {
    let status = response.status();
    let problem = match response.response().error() {
        Some(error) => problem_of(error),
        None if status.is_client_error() || status.is_server_error() => Problem::from_framework(status),
        None => return response,
    };
    let mut made = problem.to_response(path, id.as_str());
    // A page that may read answers may read errors.
    for (name, value) in response.headers().iter().filter(|(name, _)| cors::is_about_origins(name)) {
        made.headers_mut().append(name.clone(), value.clone());
    }
    response.into_response(made)
}

/// Answers a method that a path does not have; `allow` lists those it has.
pub fn only(allow: impl Into<String>) -> Route {
    let allow = allow.into();
    web::route().to(move || std::future::ready(Err::<HttpResponse, _>(Problem::method_not_allowed(allow.clone()))))
}

/// Answers a path that does not exist.
///
/// # Errors
/// Always.
pub async fn no_such_path() -> Result<HttpResponse, Problem> {
    Err(Problem::no_such_path())
}

/// The path's one parameter, decoded; what cannot be decoded cannot exist.
///
/// # Errors
/// 404.
pub fn path_parameter(request: &HttpRequest) -> Result<String, Problem> {
    let extracted = web::Path::<String>::from_request(request, &mut Payload::None).into_inner();
    extracted.map(web::Path::into_inner).map_err(|_| Problem::not_found())
}

/// What `Location` says of a path of this service: with `http.public_url` before it, where that is set.
#[must_use]
pub fn location(request: &HttpRequest, path: &str) -> String {
    let public = request.app_data::<web::Data<PublicUrl>>().and_then(|url| url.0.clone());
    public.unwrap_or_default() + path
}

/// Awaits a read of the database no longer than a caller may have to wait.
///
/// # Errors
/// 503 when time is up or the database is out of reach.
pub async fn read<T>(query: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Problem> {
    match tokio::time::timeout(DATABASE_PATIENCE, query).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::unavailable()),
    }
}

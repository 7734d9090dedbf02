//! The one error that leaves either service over HTTP: `application/problem+json`, RFC 9457.
//!
//! A problem holds what the caller may know. What only the operator may know, its cause, is logged
//! where the response is made and never sent.

mod kind;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    body::BoxBody,
    http::{
        StatusCode,
        header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
pub use kind::ProblemKind;
use serde::Serialize;
use utoipa::ToSchema;

/// One place of a request that breaks a rule. `pointer` is a JSON Pointer into the body, or `/name`
/// of a query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    /// The place.
    pub pointer: String,
    /// The rule that is broken there.
    pub detail: String,
}

impl Violation {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

#[derive(Clone, Debug)]
pub struct Problem {
    kind: ProblemKind,
    status: StatusCode,
    detail: String,
    errors: Vec<Violation>,
    retry_after: Option<Duration>,
    /// What its kind has besides: `Allow`, `WWW-Authenticate`.
    header: Option<Box<(HeaderName, String)>>,
    cause: Option<Arc<anyhow::Error>>,
    components: Option<Box<serde_json::Value>>,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: ProblemKind::of(status),
            status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            header: None,
            cause: None,
            components: None,
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The same whatever is wrong with a token: who tries some learns nothing.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "A valid bearer token is required.")
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// The token is good, but not for this.
    #[must_use]
    pub fn insufficient_scope(scope: &str) -> Self {
        Self::forbidden(format!("The token must have the scope {scope}.")).lacking(scope)
    }

    /// Says in its header too which scope the token lacks.
    #[must_use]
    pub fn lacking(self, scope: &str) -> Self {
        let lacking = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        Self { header: Some(Box::new((WWW_AUTHENTICATE, lacking))), ..self }
    }

    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "There is nothing of this name, or it is somebody else's.")
    }

    /// No route has the path that was asked for.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "This service has no such path.").of_kind(ProblemKind::NoSuchPath)
    }

    /// `allow` lists the methods that the path does answer to.
    #[must_use]
    pub fn method_not_allowed(allow: impl Into<String>) -> Self {
        let allow = allow.into();
        let detail = format!("This path answers to {allow} only.");
        Self { header: Some(Box::new((ALLOW, allow))), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Another kind than its status alone would make it.
    #[must_use]
    pub fn of_kind(self, kind: ProblemKind) -> Self {
        Self { kind, ..self }
    }

    /// Tells the caller when to ask again; whole seconds.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// `limit` in bytes.
    #[must_use]
    pub fn payload_too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The body is larger than {limit} bytes."))
    }

    #[must_use]
    pub fn unsupported_media_type() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be sent as application/json.")
    }

    #[must_use]
    pub fn unsupported_encoding() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be sent without a Content-Encoding.")
    }

    #[must_use]
    pub fn unprocessable(errors: Vec<Violation>) -> Self {
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "The request breaks the rules named in errors.") }
    }

    /// `pause` is how long the caller has to wait.
    #[must_use]
    pub fn too_many_requests(pause: Duration) -> Self {
        let detail = "There are more requests than this caller may make. Ask again later.";
        Self { retry_after: Some(pause), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// The database is out of reach, or there is more work than it can take.
    #[must_use]
    pub fn unavailable() -> Self {
        let detail = "The service cannot answer this request now. Ask again later.";
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// Of a probe: how each component is doing.
    pub fn not_well(detail: &str, components: serde_json::Value) -> Self {
        Self { components: Some(Box::new(components)), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// The body did not arrive within its time.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time.")
    }

    /// Neither the caller's fault nor an outage. `cause` is logged.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: Some(Arc::new(cause.into())), ..Self::panicked() }
    }

    /// As [`Problem::internal`], where the panic has been logged already.
    #[must_use]
    pub fn panicked() -> Self {
        let detail = "The service failed to answer. The failure is logged with this requestId.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// For an error response that the framework made on its own.
    #[must_use]
    pub fn from_framework(status: StatusCode) -> Self {
        Self::new(status, format!("The request was refused: {}.", ProblemKind::of(status).title(status)))
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    #[must_use]
    pub fn cause(&self) -> Option<&anyhow::Error> {
        self.cause.as_deref()
    }

    /// The response; `instance` is the path asked for.
    #[must_use]
    pub fn to_response(&self, instance: &str, request_id: &str) -> HttpResponse {
        let body = self.body(instance, request_id);
        let mut response = HttpResponse::build(self.status);
        if let Some(after) = self.retry_after {
            // Whole seconds, and never too early.
            response.insert_header((RETRY_AFTER, after.as_millis().div_ceil(1000).to_string()));
        }
        if let Some((name, value)) = self.header.as_deref() {
            response.insert_header((name.clone(), value.as_str()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response
            .content_type("application/problem+json")
            .body(serde_json::to_string(&body).expect("strings and numbers are JSON"))
    }

    /// What the document shows.
    pub(crate) fn example(&self, instance: &str) -> serde_json::Value {
        serde_json::json!(self.body(instance, "0192f0c3-4a11-7d5e-8f00-2b6c1d9e3a77"))
    }

    fn body<'a>(&'a self, instance: &'a str, request_id: &'a str) -> ProblemBody<'a> {
        ProblemBody {
            kind: self.kind.uri(),
            title: self.kind.title(self.status),
            status: self.status.as_u16(),
            detail: &self.detail,
            // A target without a path, as of CONNECT.
            instance: if instance.is_empty() { "/" } else { instance },
            request_id,
            errors: &self.errors,
            components: self.components.as_deref(),
        }
    }
}

/// An error, after RFC 9457.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    #[serde(rename = "type")]
    #[schema(value_type = ProblemKind)]
    kind: Cow<'static, str>,
    /// The kind, for people.
    title: &'static str,
    /// That of the response.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, and the rule that is broken.
    detail: &'a str,
    /// The path asked for; / where none could be read.
    #[schema(min_length = 1)]
    instance: &'a str,
    /// Names the request in the log.
    request_id: &'a str,
    /// Of a 422 only: every place that breaks a rule.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [Violation],
    /// Of probes only, which are not in the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    components: Option<&'a serde_json::Value>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Bare: [`crate::web::http`] fills in what only the request knows.
    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status)
    }
}

/// A database error of a read. What is worth asking again is 503, the rest is a defect.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        match crate::runtime::database::Failure::of(&error) {
            crate::runtime::database::Failure::Outage | crate::runtime::database::Failure::Conflict => {
                if crate::runtime::database::is_missing(&error) {
                    tracing::error!(error = %error, "something of the schema is missing: is a backup being restored?");
                } else {
                    tracing::debug!(error = %error, "the database did not answer a read");
                }
                Self::unavailable()
            }
            crate::runtime::database::Failure::Refused | crate::runtime::database::Failure::Defect => {
                Self::internal(error)
            }
        }
    }
}

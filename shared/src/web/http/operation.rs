//! One operation of an API, declared once: where it is, who may use it, what does it, and what the
//! published document says of it. The route, the check of its scope, the `Allow` of its path and the
//! entry in the document all come from this one declaration, so that they cannot differ.

use std::{fmt, sync::Arc};

use actix_web::{
    Error, FromRequest, Handler, HttpMessage, Responder, Route,
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, StatusCode, Uri},
    middleware::{Next, from_fn},
    web,
};
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{
        self, Content, ContentBuilder, HeaderBuilder, HttpMethod, Ref, RefOr, Required, ResponseBuilder,
        path::OperationBuilder,
        request_body::RequestBodyBuilder,
        schema::{self, ArrayBuilder, ObjectBuilder},
        security::SecurityRequirement,
    },
};

use super::{
    parameter::{self, Parameter},
    share::Share,
};
use crate::web::{
    auth::{Caller, OPERATIONS},
    problem::Problem,
};

/// How the document names its one way to say who calls.
pub(super) const BEARER: &str = "bearer";

/// Holds: No route is without a scope, or unknown to the document.
#[derive(Clone)]
pub struct Operation {
    pub(super) path: &'static str,
    pub(super) method: Method,
    scope: &'static str,
    /// Each worker of the server makes its own route of it.
    pub(super) route: Arc<dyn Fn() -> Route + Send + Sync>,
    pub(super) entry: openapi::path::Operation,
    pub(super) schemas: Vec<(String, RefOr<openapi::Schema>)>,
}

impl Operation {
    /// `scope` is what a caller's token must have.
    pub fn new<F, Args>(method: Method, path: &'static str, scope: &'static str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let is_read = method == Method::GET;
        Self::of(method, path, scope, is_read, handler)
    }

    /// A stream of events. What it tells of is looked at for all streams together, so that it needs no connection for
    /// reads, and its caller no share of them.
    pub fn stream<F, Args>(path: &'static str, scope: &'static str, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        Self::of(Method::GET, path, scope, false, handler)
    }

    fn of<F, Args>(method: Method, path: &'static str, scope: &'static str, is_read: bool, handler: F) -> Self
    where
        F: Handler<Args> + Send + Sync,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let route = {
            let method = method.clone();
            move || {
                let checked = from_fn(move |request: ServiceRequest, next| admit(scope, is_read, request, next));
                web::method(method.clone()).to(handler.clone()).wrap(checked)
            }
        };
        let entry = OperationBuilder::new().security(SecurityRequirement::new(BEARER, [scope])).build();
        Self { path, method, scope, route: Arc::new(route), entry, schemas: Vec::new() }
            .problems(&[400, 401, 403, 429, 500, 503])
    }

    /// Of its answers.
    pub(super) fn statuses(&self) -> impl Iterator<Item = u16> {
        self.entry.responses.responses.keys().filter_map(|status| status.parse().ok())
    }

    /// `id` is how generated clients name it; `summary` is one line, `description` what else there is
    /// to say.
    #[must_use]
    pub fn named(self, id: &str, summary: &str, description: &str) -> Self {
        // Few tools show the scopes of a bearer token themselves.
        let description = format!("{description} Needs the scope `{}`.", self.scope).trim_start().to_owned();
        self.saying(|entry| entry.operation_id(Some(id)).summary(Some(summary)).description(Some(description)))
    }

    #[must_use]
    pub fn parameter(self, parameter: Parameter) -> Self {
        self.saying(|entry| entry.parameter(parameter.0))
    }

    #[must_use]
    pub fn parameters(self, parameters: impl IntoIterator<Item = Parameter>) -> Self {
        parameters.into_iter().fold(self, Self::parameter)
    }

    /// The body is a `T`, in JSON.
    #[must_use]
    pub fn body<T: ToSchema>(self, example: Value) -> Self {
        self.body_if::<T>(Required::True, example)
    }

    /// The body is a `T`, in JSON, or missing.
    #[must_use]
    pub fn optional_body<T: ToSchema>(self, example: Value) -> Self {
        self.body_if::<T>(Required::False, example)
    }

    fn body_if<T: ToSchema>(mut self, required: Required, example: Value) -> Self {
        let content = json(self.schema_of::<T>(), example);
        let body = RequestBodyBuilder::new().required(Some(required)).content("application/json", content).build();
        self.saying(|entry| entry.request_body(Some(body))).problems(&[408, 413, 415, 422])
    }

    /// Answers with a `T`. `headers` are its own, by name and meaning.
    #[must_use]
    pub fn answers<T: ToSchema>(
        mut self,
        status: StatusCode,
        description: &str,
        headers: &[(&str, &str)],
        example: Value,
    ) -> Self {
        let schema = self.schema_of::<T>();
        self.answer(status, description, headers, json(schema, example))
    }

    /// Answers 200 with all `T`s there are.
    #[must_use]
    pub fn answers_list<T: ToSchema>(mut self, description: &str, example: Value) -> Self {
        let list = ArrayBuilder::new().items(self.schema_of::<T>()).build();
        self.answer(StatusCode::OK, description, &[], json(list, example))
    }

    /// Answers 200 with events that go on and on (`text/event-stream`).
    #[must_use]
    pub fn answers_events(self, description: &str, example: &str) -> Self {
        let events = ObjectBuilder::new().schema_type(schema::Type::String).build();
        let content = ContentBuilder::new().schema(Some(events)).example(Some(example.into())).build();
        self.answer_as("text/event-stream", StatusCode::OK, description, &[], content)
    }

    /// Answers 200 with a page of `T`s, as [`crate::web::paging`] makes them.
    #[must_use]
    pub fn answers_page<T: ToSchema>(mut self, description: &str, example: Value) -> Self {
        let page = ArrayBuilder::new().items(self.schema_of::<T>()).max_items(Some(parameter::MAX_PAGE)).build();
        self.parameter(parameter::limit())
            .parameter(parameter::cursor())
            .answer(
                StatusCode::OK,
                description,
                &[
                    ("Link", "`<?...>; rel=\"next\"`: the next page, where there is one, relative to this one."),
                    ("X-Next-Cursor", "The parameter `cursor` of the next page, where there is one."),
                ],
                json(page, example),
            )
            .problems(&[422])
    }

    fn answer(self, status: StatusCode, description: &str, headers: &[(&str, &str)], content: Content) -> Self {
        self.answer_as("application/json", status, description, headers, content)
    }

    fn answer_as(
        self,
        kind: &str,
        status: StatusCode,
        description: &str,
        headers: &[(&str, &str)],
        content: Content,
    ) -> Self {
        let mut response = ResponseBuilder::new()
            .description(description)
            .header_ref("X-Request-Id", header_ref("X-Request-Id"))
            .content(kind, content);
        for (name, meaning) in headers {
            response = response.header(*name, HeaderBuilder::new().description(Some(*meaning)).build());
        }
        self.saying(|entry| entry.response(status.as_str(), response))
    }

    /// Further statuses that it answers with a problem.
    #[must_use]
    pub fn problems(self, statuses: &[u16]) -> Self {
        let problem = |status: &u16| (status.to_string(), Ref::from_response_name(status.to_string()));
        self.saying(|entry| {
            statuses.iter().map(problem).fold(entry, |entry, (name, problem)| entry.response(name, problem))
        })
    }

    fn saying(self, say: impl FnOnce(OperationBuilder) -> OperationBuilder) -> Self {
        Self { entry: say(OperationBuilder::from(self.entry)).build(), ..self }
    }

    fn schema_of<T: ToSchema>(&mut self) -> Ref {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        Ref::from_schema_name(T::name())
    }

    pub(super) fn in_document(&self) -> HttpMethod {
        match self.method {
            Method::GET => HttpMethod::Get,
            Method::PUT => HttpMethod::Put,
            Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Post,
        }
    }
}

pub(super) fn header_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

fn json(schema: impl Into<RefOr<openapi::Schema>>, example: Value) -> Content {
    ContentBuilder::new().schema(Some(schema)).example(Some(example)).build()
}

/// Lets a caller with the scope pass, before anything of the body is read.
async fn admit(
    scope: &'static str,
    is_read: bool,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // A customer's token is for that customer's orders, whatever scopes it was given.
    let is_of_all = scope == OPERATIONS && !request.path().starts_with("/orders/");
    let refused = request.extensions().get::<Caller>().map(|caller| {
        if !caller.may(scope) {
            return Some(Problem::insufficient_scope(scope));
        }
        let detail = "The token is for the orders of one customer.";
        (is_of_all && caller.customer_ref.is_some()).then(|| Problem::forbidden(detail))
    });
    match refused {
        Some(None) if !is_encoded_well(request.uri()) => {
            Ok(request.error_response(Problem::bad_request("The path or query is not percent-encoded UTF-8.")))
        }
        Some(None) if is_read => match Share::take(&request).await {
            // Until there is an answer.
            Ok(_share) => next.call(request).await,
            Err(problem) => Ok(request.error_response(problem)),
        },
        Some(None) => next.call(request).await,
        Some(Some(problem)) => Ok(request.error_response(problem)),
        None => Ok(request.error_response(Problem::internal(anyhow::anyhow!("a route without authentication")))),
    }
}

/// Whether each `%` begins a byte, and all of them are UTF-8. Readers would otherwise replace what is not.
fn is_encoded_well(uri: &Uri) -> bool {
    let decodes = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, behind)) = rest.split_first() {
            rest = behind;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let digits = behind.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            let byte = digits.and_then(|digits| std::str::from_utf8(digits).ok());
            let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else { return false };
            bytes.push(byte);
            rest = &behind[2..];
        }
        std::str::from_utf8(&bytes).is_ok()
    };
    decodes(uri.path()) && uri.query().is_none_or(decodes)
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_are_text_are_encoded_well() {
        for good in ["/", "/a%20b", "/%C3%A9?x=%e2%82%ac&y=%25", "/a+b?c+d", "/%00"] {
            assert!(is_encoded_well(&good.parse().unwrap()), "{good}");
        }
        for bad in ["/%ff", "/%c3", "/%", "/%2", "/%zz", "/%+1", "/?x=%ff", "/?%e2%82", "/%ed%a0%80", "/%c0%80"] {
            assert!(!is_encoded_well(&bad.parse().unwrap()), "{bad}");
        }
    }
}

//! Which kinds of problems there are: the `type` of RFC 9457, a closed list that a client can switch on.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema, extensions::ExtensionsBuilder},
};

use crate::contract::schema;

const NAMESPACE: &str = "urn:summarisation:problem:";

/// A kind is added where a program has something else to do about it than about the others of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    BadRequest,
    Unauthorized,
    Forbidden,
    /// The thing that the path names is unknown, or somebody else's.
    NotFound,
    /// No route has this path, whatever things there are: the client asks the wrong service or version.
    NoSuchPath,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    /// The first request under the key is still running: worth repeating, which other conflicts are not.
    IdempotencyKeyInUse,
    PayloadTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    UnprocessableEntity,
    /// The key belongs to another request: a fault of the client's bookkeeping, not of the body.
    IdempotencyKeyReused,
    TooManyRequests,
    RequestHeaderFieldsTooLarge,
    InternalServerError,
    ServiceUnavailable,
    /// What the status says, and nothing else: RFC 9457 has this name for it.
    Blank,
}

impl ProblemKind {
    pub const ALL: [Self; 19] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::NoSuchPath,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::IdempotencyKeyInUse,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::UnprocessableEntity,
        Self::IdempotencyKeyReused,
        Self::TooManyRequests,
        Self::RequestHeaderFieldsTooLarge,
        Self::InternalServerError,
        Self::ServiceUnavailable,
        Self::Blank,
    ];

    /// The kind that a status has where nothing more is known.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_REQUEST => Self::BadRequest,
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::CONFLICT => Self::Conflict,
            StatusCode::PAYLOAD_TOO_LARGE => Self::PayloadTooLarge,
            StatusCode::URI_TOO_LONG => Self::UriTooLong,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::UNPROCESSABLE_ENTITY => Self::UnprocessableEntity,
            StatusCode::TOO_MANY_REQUESTS => Self::TooManyRequests,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::RequestHeaderFieldsTooLarge,
            StatusCode::INTERNAL_SERVER_ERROR => Self::InternalServerError,
            StatusCode::SERVICE_UNAVAILABLE => Self::ServiceUnavailable,
            _ => Self::Blank,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::NoSuchPath => "no-such-path",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::Conflict => "conflict",
            Self::IdempotencyKeyInUse => "idempotency-key-in-use",
            Self::PayloadTooLarge => "payload-too-large",
            Self::UriTooLong => "uri-too-long",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::UnprocessableEntity => "unprocessable-entity",
            Self::IdempotencyKeyReused => "idempotency-key-reused",
            Self::TooManyRequests => "too-many-requests",
            Self::RequestHeaderFieldsTooLarge => "request-header-fields-too-large",
            Self::InternalServerError => "internal-server-error",
            Self::ServiceUnavailable => "service-unavailable",
            Self::Blank => "blank",
        }
    }

    pub(super) fn uri(self) -> Cow<'static, str> {
        match self {
            Self::Blank => "about:blank".into(),
            named => format!("{NAMESPACE}{}", named.name()).into(),
        }
    }

    /// The same for every problem of the kind, as RFC 9457 asks.
    pub(super) fn title(self, status: StatusCode) -> &'static str {
        match self {
            Self::NoSuchPath => "No Such Path",
            Self::IdempotencyKeyInUse => "Idempotency-Key In Use",
            Self::IdempotencyKeyReused => "Idempotency-Key Reused",
            _ => status.canonical_reason().unwrap_or("Unknown Error"),
        }
    }
}

impl ToSchema for ProblemKind {
    fn name() -> Cow<'static, str> {
        "ProblemType".into()
    }
}

impl PartialSchema for ProblemKind {
    fn schema() -> RefOr<Schema> {
        // Generators would make names of the whole URIs.
        let names: Vec<_> = Self::ALL.map(|kind| kind.name().to_uppercase().replace('-', "_")).into();
        schema::text()
            .enum_values(Some(Self::ALL.map(|kind| kind.uri().into_owned())))
            .extensions(Some(ExtensionsBuilder::new().add("x-enum-varnames", names).build()))
            .description(Some("Which kind of problem, for programs. A client has to bear kinds that it does not know."))
            .into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_every_status_a_kind_of_the_list() {
        let uris: BTreeSet<_> = ProblemKind::ALL.map(ProblemKind::uri).into();
        assert_eq!(uris.len(), ProblemKind::ALL.len());
        for status in (400..600).filter_map(|status| StatusCode::from_u16(status).ok()) {
            assert!(uris.contains(&ProblemKind::of(status).uri()), "{status}");
        }
        assert_eq!(ProblemKind::of(StatusCode::NOT_IMPLEMENTED).uri(), "about:blank");
    }
}

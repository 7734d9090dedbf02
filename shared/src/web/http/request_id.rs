use std::{fmt, sync::Arc};

use actix_web::dev::ServiceRequest;
use uuid::Uuid;

/// Names one request in answers and logs: the caller's own name where it is reasonable.
#[derive(Clone, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// For what has no name yet.
    pub(super) fn new() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    pub(super) fn of(request: &ServiceRequest) -> Self {
        let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
        given.filter(|id| is_reasonable(id)).map_or_else(Self::new, |id| Self(id.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Safe in a log line, a header and a shell.
fn is_reasonable(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

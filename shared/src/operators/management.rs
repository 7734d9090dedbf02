//! The management port: probes, metrics, and what an operator may change while the service runs.

pub mod exposition;
mod from_database;
mod level;
mod probes;
pub mod tasks;

use actix_web::{HttpRequest, web::ServiceConfig};
pub use probes::Probes;
use tokio::sync::mpsc;

use self::exposition::Exposition;
use crate::{
    operators::audit::{Author, Deed},
    runtime::{config::Reader, telemetry::Level},
    web::{
        auth::{self, Authentication, OPERATIONS},
        http,
        problem::Problem,
    },
};

/// `management.*`
#[derive(Clone, Debug)]
pub struct Settings {
    pub http: http::Settings,
    /// Whether a change wants a token with the scope `operations`, as the API does.
    pub require_token: bool,
}

impl Settings {
    pub fn read(s: &mut Reader, auth: &auth::Settings) -> Self {
        let (http, require_token) = (http::Settings::management(s), s.get("management.require_token"));
        if require_token && matches!(auth, auth::Settings::Disabled) {
            s.mistake("management.require_token", "needs auth.mode jwt: nothing would tell a good token");
        }
        Self { http, require_token }
    }

    /// Who may change something at this port: everybody, or who brings a token.
    #[must_use]
    pub fn operators(&self, authentication: &Authentication) -> Operators {
        Operators(if self.require_token { authentication.clone() } else { Authentication::disabled() })
    }
}

/// Tells who may change something.
#[derive(Clone, Debug)]
pub struct Operators(Authentication);

impl Operators {
    /// # Errors
    /// 401 or 403; 503 while there is no key.
    pub async fn admit(&self, request: &HttpRequest) -> Result<Author, Problem> {
        if self.0.is_disabled() {
            return Ok(Author::of_management(request));
        }
        let caller = self.0.caller(request.headers()).await?;
        if caller.may(OPERATIONS) && caller.customer_ref.is_none() {
            Ok(Author { via: "management", ..Author::of_request(request, &caller) })
        } else {
            Err(Problem::insufficient_scope(OPERATIONS))
        }
    }
}

/// Its routes.
pub fn routes(
    probes: &Probes,
    exposition: &Exposition,
    level: &Level,
    operators: Operators,
    deeds: mpsc::Sender<Deed>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
    let (probes, exposition, level) = (probes.routes(), exposition.routes(), level::routes(level, operators, deeds));
    move |routes| {
        probes(routes);
        exposition(routes);
        level(routes);
    }
}

//! How much is logged, changeable while the process runs.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::Deserialize;
use serde_json::json;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::{
    http::only,
    json::{self, Object},
    problem::{Problem, Violation},
};

const RULE: &str = "must be error, warn, info, debug or trace, or directives like RUST_LOG's";

#[derive(Clone, Debug)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
}

impl Level {
    pub(super) fn new(level: &str) -> (Self, reload::Layer<EnvFilter, Registry>) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(level));
        let (filter, handle) = reload::Layer::new(filter);
        (Self(handle), filter)
    }

    /// The route `/log-level`.
    pub fn routes(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
        let level = Data::new(self.clone());
        move |routes| {
            routes
                .app_data(level.clone())
                .service(web::resource("/log-level").put(change).default_service(only("PUT")));
        }
    }
}

async fn change(request: HttpRequest, body: Payload, level: Data<Level>) -> Result<HttpResponse, Problem> {
    let Object(Wanted { level: wanted }) = json::body::<Object<Wanted>>(&request, body).await?;
    check_level(&wanted)
        .map_err(|_| Problem::unprocessable(vec![Violation::new("/level", format!("This {RULE}."))]))?;
    level.get_ref().0.reload(filter(&wanted)).map_err(Problem::internal)?;
    tracing::warn!(level = wanted, "the log level was changed");
    Ok(HttpResponse::Ok().json(json!({ "level": wanted })))
}

/// The server's own lines about its workers repeat what is logged when it listens. Those about
/// connections quote what callers send, and any caller could fill the log with them.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("{level},actix_server=warn,actix_http=off"))
}

/// The setting `log.level`: a level, or directives as in `RUST_LOG`.
///
/// # Errors
/// What it must be instead.
pub fn check_level(level: &String) -> Result<(), String> {
    EnvFilter::builder().parse(level).map(|_| ()).map_err(|_| RULE.into())
}

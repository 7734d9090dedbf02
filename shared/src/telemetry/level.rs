//! How much is logged, changeable while the process runs.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::{
    audit::{Action, Deed},
    http::only,
    json::{self, Object},
    management::Operators,
    problem::{Problem, Violation},
};

/// The target of lines that no level removes.
pub(crate) const ALWAYS: &str = "always";
/// Directives in one level.
const MOST: usize = 32;
const RULE: &str = "must be error, warn, info, debug or trace, or up to 32 of TARGET=LEVEL with commas, \
     like info,order_service=debug; not of actix_http or actix_server";
/// The server's own lines about its workers repeat what is logged when it listens. Those about
/// connections quote what callers send, and any caller could fill the log with them.
const FORCED: [(&str, &str); 3] = [("actix_server", "warn"), ("actix_http", "off"), (ALWAYS, "trace")];

#[derive(Clone, Debug)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// What the route works with.
#[derive(Clone, Debug)]
struct Changing {
    level: Level,
    operators: Operators,
    /// Where the audit takes from.
    deeds: mpsc::Sender<Deed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: String,
}

impl Level {
    pub(super) fn new(level: &str) -> (Self, reload::Layer<EnvFilter, Registry>) {
        // It is the operator's own: any of its forms, as long as it says something.
        let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty());
        let filter = wanted.and_then(|wanted| parsed(&wanted)).or_else(|| parsed(level));
        let (filter, handle) = reload::Layer::new(filter.expect("the setting was checked"));
        (Self(handle), filter)
    }

    /// The route `/log-level`. Each change is left in `deeds` for the audit.
    pub fn routes(
        &self,
        operators: Operators,
        deeds: mpsc::Sender<Deed>,
    ) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
        let changing = Data::new(Changing { level: self.clone(), operators, deeds });
        move |routes| {
            routes
                .app_data(changing.clone())
                .service(web::resource("/log-level").put(change).default_service(only("PUT")));
        }
    }
}

async fn change(request: HttpRequest, body: Payload, changing: Data<Changing>) -> Result<HttpResponse, Problem> {
    let Changing { level, operators, deeds } = &**changing;
    let author = operators.admit(&request).await?;
    let Object(Wanted { level: wanted }) = json::body::<Object<Wanted>>(&request, body).await?;
    let refused = || Problem::unprocessable(vec![Violation::new("/level", format!("This {RULE}."))]);
    check_level(&wanted).map_err(|_| refused())?;
    let filter = parsed(&wanted).ok_or_else(refused)?;
    let before = level.0.with_current(ToString::to_string).map_err(Problem::internal)?;
    let peer = request.peer_addr().map(|peer| peer.to_string());
    // Before and after: whoever looks for lines that are missing finds when they ended.
    tracing::warn!(target: ALWAYS, wanted, before, peer, "changing the log level");
    level.0.reload(filter).map_err(Problem::internal)?;
    tracing::warn!(target: ALWAYS, wanted, "the log level was changed");
    let deed = Deed { done_at: Instant::now(), author, action: Action::LogLevelChanged, subject: wanted.clone() };
    if deeds.try_send(deed).is_err() {
        tracing::warn!(target: ALWAYS, "too many changes wait for the database: this one stands in the log only");
    }
    Ok(HttpResponse::Ok().json(json!({ "level": wanted })))
}

/// What is wanted, and what is forced. No regular expressions: they are compiled, and a short one can take minutes.
fn parsed(level: &str) -> Option<EnvFilter> {
    let forced: String = FORCED.iter().map(|(target, level)| format!(",{target}={level}")).collect();
    let wanted = level.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    EnvFilter::builder().with_regex(false).parse(wanted + &forced).ok()
}

/// The setting `log.level`, and what `PUT /log-level` takes: a level, or a list of levels and `TARGET=LEVEL`.
///
/// # Errors
/// What it must be instead.
pub fn check_level(level: &str) -> Result<(), String> {
    let is_level =
        |text: &str| ["error", "warn", "info", "debug", "trace"].iter().any(|one| one.eq_ignore_ascii_case(text));
    let is_target = |text: &str| {
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        text.split("::").all(is_name) && FORCED.iter().all(|(forced, _)| text.split("::").next() != Some(forced))
    };
    let is_directive = |text: &str| match text.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(text),
    };
    if level.split(',').map(str::trim).all(is_directive) && level.split(',').count() <= MOST {
        Ok(())
    } else {
        Err(RULE.into())
    }
}

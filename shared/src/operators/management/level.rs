//! How much is logged, changed while the process runs.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};

use super::Operators;
use crate::{
    operators::audit::{Action, Deed},
    runtime::telemetry::{ALWAYS, Level, LevelError, RULE},
    web::{
        http::only,
        json::{self, Object},
        problem::{Problem, Violation},
    },
};

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

/// The route `/log-level`. Each change is left in `deeds` for the audit.
pub(super) fn routes(
    level: &Level,
    operators: Operators,
    deeds: mpsc::Sender<Deed>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
    let changing = Data::new(Changing { level: level.clone(), operators, deeds });
    move |routes| {
        routes.app_data(changing.clone()).service(web::resource("/log-level").put(change).default_service(only("PUT")));
    }
}

async fn change(request: HttpRequest, body: Payload, changing: Data<Changing>) -> Result<HttpResponse, Problem> {
    let Changing { level, operators, deeds } = &**changing;
    let author = operators.admit(&request).await?;
    let Object(Wanted { level: wanted }) = json::body::<Object<Wanted>>(&request, body).await?;
    let peer = request.peer_addr().map(|peer| peer.to_string());
    level.change(&wanted, peer.as_deref()).map_err(|error| match error {
        LevelError::Wrong => Problem::unprocessable(vec![Violation::new("/level", format!("This {RULE}."))]),
        LevelError::Gone(_) => Problem::internal(error),
    })?;
    let deed = Deed { done_at: Instant::now(), author, action: Action::LogLevelChanged, subject: wanted.clone() };
    if deeds.try_send(deed).is_err() {
        tracing::warn!(target: ALWAYS, "too many changes wait for the database: this one stands in the log only");
    }
    Ok(HttpResponse::Ok().json(json!({ "level": wanted })))
}

//! The management port: probes, metrics, and what an operator may change while the service runs.

use actix_web::web::ServiceConfig;
use tokio::sync::mpsc;

use crate::{audit::Deed, health::Probes, metrics::exposition::Exposition, telemetry::Level};

/// Its routes.
pub fn routes(
    probes: &Probes,
    exposition: &Exposition,
    level: &Level,
    deeds: mpsc::Sender<Deed>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
    let (probes, exposition, level) = (probes.routes(), exposition.routes(), level.routes(deeds));
    move |routes| {
        probes(routes);
        exposition(routes);
        level(routes);
    }
}

//! The routes of the probes, and when each of them is well.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use actix_web::{
    HttpResponse, Resource,
    http::{Method, header::ALLOW},
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use sqlx::migrate::Migrator;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    runtime::{
        database::{self, Pool},
        health::{Health, Report, State},
        lifecycle::Shutdown,
    },
    web::{http::only, problem::Problem},
};

/// What the probes look at.
#[derive(Clone, Debug)]
pub struct Probes {
    pub health: Health,
    pub shutdown: Shutdown,
    pub pool: Pool,
    requests: Pool,
    schema: &'static Migrator,
    started: Arc<OnceLock<()>>,
    needed: Arc<OnceLock<&'static str>>,
}

impl Probes {
    #[must_use]
    pub fn new(health: Health, shutdown: Shutdown, pool: Pool, requests: Pool, schema: &'static Migrator) -> Self {
        Self { health, shutdown, pool, requests, schema, started: Arc::default(), needed: Arc::default() }
    }

    /// The schema is known to fit and everything runs.
    pub fn started(&self) {
        self.started.get_or_init(|| ());
    }

    /// It wants no traffic while this component waits.
    pub fn needs(&self, component: &'static str) {
        self.needed.get_or_init(|| component);
    }

    fn is_started(&self) -> bool {
        self.started.get().is_some()
    }

    /// Wants traffic: started, the database in reach with its schema, not told to stop. Kafka does not matter:
    /// orders are taken and figures are told without it.
    async fn is_ready(&self) -> bool {
        let waits = |name: &&str| self.health.reports().get(*name).is_some_and(|report| report.state == State::Waiting);
        let may_answer = self.is_started() && !self.shutdown.is_requested() && !self.needed.get().is_some_and(waits);
        may_answer && database::is_usable(&self.pool, self.schema).await && self.requests.has_any().await
    }

    /// The routes of the management port.
    pub fn routes(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
        let probes = Data::new(self.clone());
        move |routes| {
            routes
                .app_data(probes.clone())
                .service(probe("/health/live").get(live))
                .service(probe("/health/ready").get(ready))
                .service(probe("/health/startup").get(startup));
        }
    }

    fn answer(&self, well: bool, otherwise: &str) -> Result<HttpResponse, Problem> {
        let components = self.health.reports();
        if !well {
            let components = serde_json::to_value(components).expect("reports are JSON");
            return Err(Problem::not_well(otherwise, components));
        }
        let time = OffsetDateTime::now_utc().format(&Rfc3339).expect("the present has four digits in its year");
        Ok(HttpResponse::Ok().json(ProbeAnswer { status: "up", time, components }))
    }
}

/// Some load balancers probe with OPTIONS, and take anything but 200 for an outage.
fn probe(path: &str) -> Resource {
    let options = || async { HttpResponse::Ok().insert_header((ALLOW, "GET, HEAD, OPTIONS")).finish() };
    web::resource(path).route(web::method(Method::OPTIONS).to(options)).default_service(only("GET"))
}

#[derive(Serialize)]
struct ProbeAnswer {
    status: &'static str,
    time: String,
    components: BTreeMap<&'static str, Report>,
}

/// Postgres and Kafka do not matter: no restart brings them back.
async fn live(probes: Data<Probes>) -> Result<HttpResponse, Problem> {
    let hung = probes.health.reports().values().any(|report| report.state == State::Hung);
    probes.answer(!hung, "A component hangs.")
}

async fn ready(probes: Data<Probes>) -> Result<HttpResponse, Problem> {
    probes.answer(probes.is_ready().await, "This instance wants no traffic.")
}

async fn startup(probes: Data<Probes>) -> Result<HttpResponse, Problem> {
    probes.answer(probes.is_started(), "This instance has not started yet.")
}

//! What the probes tell: the state of the process and of each of its background tasks.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use actix_web::{
    HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use sqlx::PgPool;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{database, http::only, lifecycle::Shutdown};

/// The book in which every component writes how it is doing.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Report>>>);

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    state: State,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    last_success: Option<OffsetDateTime>,
    last_error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Starting,
    Working,
    /// For something outside the process to come back.
    Waiting,
    Ended,
}

impl Health {
    /// The page of a new component, which is starting.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        let report =
            Report { state: State::Starting, since: OffsetDateTime::now_utc(), last_success: None, last_error: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, report);
        Component { health: self.clone(), name }
    }

    fn reports(&self) -> BTreeMap<&'static str, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One component's page.
#[derive(Clone, Debug)]
pub struct Component {
    health: Health,
    name: &'static str,
}

impl Component {
    pub fn working(&self) {
        self.write(State::Working, |report| report.last_success = Some(OffsetDateTime::now_utc()));
    }

    /// Whether this is news: the caller logs a failure when it begins, not each time it is tried again.
    pub fn waiting(&self, why: impl fmt::Display) -> bool {
        self.write(State::Waiting, |report| report.last_error = Some(why.to_string()))
    }

    pub fn ended(&self, error: Option<&anyhow::Error>) {
        self.write(State::Ended, |report| {
            if let Some(error) = error {
                report.last_error = Some(error.to_string());
            }
        });
    }

    fn write(&self, state: State, change: impl FnOnce(&mut Report)) -> bool {
        let mut reports = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        let report = reports.get_mut(self.name).expect("a component is entered before it is handed out");
        let news = report.state != state;
        if news {
            report.since = OffsetDateTime::now_utc();
        }
        report.state = state;
        change(report);
        news
    }
}

/// What the probes look at.
#[derive(Clone, Debug)]
pub struct Probes {
    pub health: Health,
    pub shutdown: Shutdown,
    pub pool: PgPool,
    started: Arc<OnceLock<()>>,
}

impl Probes {
    #[must_use]
    pub fn new(health: Health, shutdown: Shutdown, pool: PgPool) -> Self {
        Self { health, shutdown, pool, started: Arc::default() }
    }

    /// The schema is known to fit and everything runs.
    pub fn started(&self) {
        self.started.get_or_init(|| ());
    }

    fn is_started(&self) -> bool {
        self.started.get().is_some()
    }

    /// Wants traffic: started, the database in reach, not told to stop. Kafka does not matter:
    /// orders are taken and figures are told without it.
    async fn is_ready(&self) -> bool {
        self.is_started() && !self.shutdown.is_requested() && database::is_reachable(&self.pool).await
    }

    /// The routes of the management port.
    pub fn routes(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
        let probes = Data::new(self.clone());
        move |routes| {
            routes
                .app_data(probes.clone())
                .service(web::resource("/health/live").get(live).default_service(only("GET")))
                .service(web::resource("/health/ready").get(ready).default_service(only("GET")))
                .service(web::resource("/health/startup").get(startup).default_service(only("GET")));
        }
    }

    fn answer(&self, well: bool) -> HttpResponse {
        let mut response = if well { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
        response.json(Answer {
            status: if well { "up" } else { "down" },
            time: OffsetDateTime::now_utc().format(&Rfc3339).expect("the present has four digits in its year"),
            components: self.health.reports(),
        })
    }
}

#[derive(Serialize)]
struct Answer {
    status: &'static str,
    time: String,
    components: BTreeMap<&'static str, Report>,
}

async fn live(probes: Data<Probes>) -> HttpResponse {
    probes.answer(true)
}

async fn ready(probes: Data<Probes>) -> HttpResponse {
    probes.answer(probes.is_ready().await)
}

async fn startup(probes: Data<Probes>) -> HttpResponse {
    probes.answer(probes.is_started())
}

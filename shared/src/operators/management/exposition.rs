//! From the table of metrics to the answer to a scrape.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::header::CONTENT_TYPE,
    web::{self, Data, ServiceConfig},
};
use anyhow::Context;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use sqlx::PgConnection;
use tokio::time::sleep;

use super::from_database::{FromDatabase, Question};
use crate::{
    runtime::{
        config::Reader,
        database::Pool,
        health::TaskStatus,
        lifecycle::Shutdown,
        metrics::{Gauge, Metric, now::Now, own},
    },
    web::http::only,
};

/// How often recorded values are summed up: until then each takes 16 bytes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Settings {
    pub enabled: bool,
    pub database_every: Duration,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        Self { enabled: settings.get("metrics.enabled"), database_every: settings.get("metrics.database_every") }
    }
}

/// Everything that a scrape tells.
#[derive(Clone, Default)]
pub struct Exposition {
    handle: Option<PrometheusHandle>,
    process: Collector,
    /// Those of the table whose values live in the database.
    of_database: Arc<[&'static Gauge]>,
    sources: Arc<Mutex<Sources>>,
}

#[derive(Clone, Default)]
struct Sources {
    memory: Vec<Arc<dyn Fn() + Send + Sync>>,
    database: Option<FromDatabase>,
}

impl fmt::Debug for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exposition")
    }
}

impl Exposition {
    /// Starts the metrics of this process: once.
    ///
    /// # Errors
    /// They were started before.
    pub fn start(settings: &Settings, version: &'static str, table: &[&'static dyn Metric]) -> anyhow::Result<Self> {
        if !settings.enabled {
            return Ok(Self::default());
        }
        let all = || table.iter().chain(own::ALL);
        let mut builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(own::HTTP_DURATION.name.to_owned()), own::HTTP_DURATION.buckets)?;
        for metric in all() {
            if let Some(buckets) = metric.buckets() {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), buckets)?;
            }
        }
        let handle = builder.install_recorder().context("metrics are started once")?;
        all().for_each(|metric| metric.register());
        metrics::describe_histogram!(own::HTTP_DURATION.name, own::HTTP_DURATION.help);
        metrics::describe_gauge!(own::BUILD, "1, with the version of the program");
        metrics::gauge!(own::BUILD, "version" => version).set(1.0);
        metrics::describe_gauge!(own::CONNECTIONS, "Open connections of a pool, idle or used");
        metrics::describe_gauge!(
            own::TASK_HEARTBEAT_AGE,
            "How long a task has been with one piece of work, 0 while it waits"
        );
        metrics::describe_gauge!(own::TASK_STATE, "1 for the state that a task is in");
        own::POOLS.iter().for_each(|pool| connections(pool, 0, 0));
        let process = Collector::default();
        process.describe();
        let of_database = table.iter().filter_map(|&metric| metric.as_of_database()).collect();
        Ok(Self { handle: Some(handle), process, of_database, sources: Arc::default() })
    }

    /// Calls `source` with each scrape, before it is answered. It must not wait for anything.
    pub fn at_scrape(&self, source: impl Fn() + Send + Sync + 'static) {
        self.sources().memory.push(Arc::new(source));
    }

    /// Asks `question` with a scrape, on `pool`, at most every `metrics.database_every`.
    pub fn of_database(
        &self,
        pool: &Pool,
        question: impl for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<(), sqlx::Error>> + Send + Sync + 'static,
        settings: &Settings,
    ) {
        let question: Question = Arc::new(question);
        let (pool, gauges, kept_for) = (pool.clone(), Arc::clone(&self.of_database), settings.database_every);
        self.sources().database = Some(FromDatabase { pool, question, gauges, kept_for, asked: Arc::default() });
    }

    /// Tells of the connections of `pool`, one of [`own::POOLS`].
    pub fn of_pool(&self, name: &'static str, pool: &Pool) {
        let pool = pool.clone();
        self.at_scrape(move || {
            let (size, idle) = pool.size();
            connections(name, idle, size.saturating_sub(idle));
            own::CONNECTIONS_MAX.set_count_of(name, u64::from(pool.max_size()));
        });
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sums up what was recorded, until the drain begins: scraped or not, memory stays bounded.
    ///
    /// # Errors
    /// None.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        while shutdown.unless_draining(sleep(UPKEEP_EVERY)).await.is_some() {
            if let Some(handle) = &self.handle {
                status.busy_now(|| handle.run_upkeep());
            }
            status.ok();
        }
        Ok(())
    }

    /// The route `/metrics`.
    pub fn routes(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
        let exposition = Data::new(self.clone());
        move |routes| {
            routes
                .app_data(exposition.clone())
                .service(web::resource("/metrics").get(scrape).default_service(only("GET")));
        }
    }

    /// What a scrape would tell now.
    pub async fn now(&self) -> Now {
        Now(self.render().await)
    }

    async fn render(&self) -> String {
        let Some(handle) = &self.handle else { return String::new() };
        let Sources { memory, database } = self.sources().clone();
        memory.iter().for_each(|source| source());
        if let Some(database) = database {
            database.refresh().await;
        }
        self.process.collect();
        // What is not known is left out: Prometheus would keep a value that is no number.
        let text = handle.render();
        if text.contains(" NaN\n") {
            return text.split_inclusive('\n').filter(|line| !line.ends_with(" NaN\n")).collect();
        }
        text
    }
}

async fn scrape(exposition: Data<Exposition>) -> HttpResponse {
    let text = exposition.render().await;
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")).body(text)
}

fn connections(pool: &'static str, idle: u32, used: u32) {
    for (state, count) in [("idle", idle), ("used", used)] {
        metrics::gauge!(own::CONNECTIONS, own::POOL => pool, "db_client_connection_state" => state)
            .set(f64::from(count));
    }
}

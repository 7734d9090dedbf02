//! What every service has, whatever it does: two pools whose password may change, tasks of which one that hangs is noticed,
//! and metrics that are summed up although nobody scrapes them.

use std::time::Duration;

use actix_web::web::ServiceConfig;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    operators::management::{
        self, Probes,
        exposition::{self, Exposition},
    },
    runtime::{
        database::{self, Migrate, Pool, Tables},
        health::Health,
        lifecycle::{Shutdown, Tasks},
        metrics::Metric,
        telemetry::Telemetry,
    },
    web::{
        auth::Authentication,
        http::{Port, listen},
    },
};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a service is told that has no commands of its own.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Runs the service (the default).
    Serve,
    /// Brings the schema up to date and ends.
    Migrate(Migrate),
}

impl Command {
    /// By the arguments of this process, which ends where they are wrong, or ask for help.
    #[must_use]
    pub fn given(service: &'static str, version: &'static str) -> Self {
        let given = Arguments::command().name(service).version(version).get_matches();
        Arguments::from_arg_matches(&given).unwrap_or_else(|wrong| wrong.exit()).command.unwrap_or(Self::Serve)
    }
}

/// Of which service a process is, and its settings.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    pub tables: Tables,
    pub version: &'static str,
    pub database: &'a database::Settings,
    pub metrics: &'a exposition::Settings,
    /// `health.task_hung_after`
    pub task_hung_after: Duration,
}

/// What its parts have in common.
#[derive(Debug)]
pub struct Process {
    /// Of the work.
    pub pool: Pool,
    pub requests: Pool,
    pub probes: Probes,
    pub exposition: Exposition,
    pub shutdown: Shutdown,
    pub tasks: Tasks,
}

impl Process {
    /// Begins it, with `metrics` as the table of its own ones: once. Waits for nobody.
    ///
    /// # Errors
    /// The database's URL does not parse, or the metrics were started before.
    pub fn begin(basis: Basis<'_>, metrics: &[&'static dyn Metric], telemetry: &Telemetry) -> anyhow::Result<Self> {
        let service = basis.tables.service;
        let pool = basis.database.pool(service)?;
        let requests = basis.database.request_pool(&format!("{service} requests"))?;
        let exposition = Exposition::start(basis.metrics, basis.version, metrics)?;
        let (health, shutdown) = (Health::default(), Shutdown::default());
        let mut tasks = Tasks::new(health.clone(), shutdown.clone());
        health.watch(basis.task_hung_after);
        exposition.at_scrape({
            let health = health.clone();
            move || health.set_gauges()
        });
        exposition.at_scrape(telemetry.gauges());
        exposition.of_pool("work", &pool);
        exposition.of_pool("requests", &requests);
        tasks.spawn("metrics", {
            let exposition = exposition.clone();
            |shutdown, status| exposition.run(shutdown, status)
        });
        if let Some(renewal) = basis.database.renewal(&[&pool, &requests]) {
            tasks.spawn("credentials", |shutdown, status| renewal.run(shutdown, status));
        }
        let probes = Probes::new(health, shutdown.clone(), pool.clone(), requests.clone(), basis.tables.migrations);
        Ok(Self { pool, requests, probes, exposition, shutdown, tasks })
    }

    /// Opens the port for operators, with probes and metrics. Nothing can be changed there: that wants an audit.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn show(&mut self, settings: &management::Settings) -> anyhow::Result<()> {
        let server = listen(Port::Management, settings.http.clone(), 1, Duration::from_secs(1))?;
        let (probes, metrics) = (self.probes.routes(), self.exposition.routes());
        let routes = move |routes: &mut ServiceConfig| {
            probes(routes);
            metrics(routes);
        };
        self.tasks
            .spawn("management", |shutdown, status| server.serve(routes, Authentication::disabled(), shutdown, status));
        Ok(())
    }
}

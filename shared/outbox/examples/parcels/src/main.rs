//! A parcel is booked over HTTP, and that is announced by the outbox: once, whatever breaks. `parcels migrate`, then `parcels`.

mod booking;
mod config;

use std::{process::ExitCode, time::Duration};

use config::Config;
use outbox::start::{self, Pools, Schema};
use shared::{
    operators::management::{Probes, exposition::Exposition},
    runtime::{
        database::{self, Migrate, Tables},
        health::Health,
        lifecycle::{Exit, Shutdown, StopSignal, Tasks, ended},
        telemetry::Telemetry,
        terminal,
    },
    web::{
        auth::Authentication,
        http::{Port, listen},
    },
};
use sqlx::migrate::Migrator;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");
const TABLES: Tables = Tables { service: "parcels", migrations: &MIGRATIONS, mark: "parcels" };
const SCHEMA: Schema = Schema { tables: TABLES, needed: &[("parcels", "INSERT")] };

#[tokio::main]
async fn main() -> ExitCode {
    let _failpoints = fail::FailScenario::setup();
    let loaded = Config::load().inspect_err(|mistakes| mistakes.iter().for_each(terminal::complain));
    let Ok(config) = loaded else { return Exit::WrongSettings.into() };
    ended(match std::env::args().nth(1).as_deref() {
        Some("migrate") => database::migrate(&config.database, &TABLES, Migrate::default()).await,
        _ => serve(config).await,
    })
}

async fn serve(config: Config) -> anyhow::Result<Exit> {
    let _telemetry = Telemetry::start(&config.telemetry, "parcels")?;
    let (mut signal, health, shutdown) = (StopSignal::new()?, Health::default(), Shutdown::default());
    let (pool, requests) = (config.database.pool("parcels")?, config.database.request_pool("parcels requests")?);
    let probes = Probes::new(health.clone(), shutdown.clone(), pool.clone(), &MIGRATIONS);
    let exposition = Exposition::start(&config.metrics, env!("CARGO_PKG_VERSION"), outbox::metrics::ALL)?;
    exposition.of_database(&pool, outbox::metrics::of_database, &config.metrics);
    let mut tasks = Tasks::new(health.clone(), shutdown);

    let server = listen(Port::Management, config.management.http.clone(), 1, Duration::from_secs(1))?;
    tasks.spawn("management", {
        let (probes, metrics) = (probes.routes(), exposition.routes());
        let routes = move |routes: &mut _| {
            probes(routes);
            metrics(routes);
        };
        |shutdown, status| server.serve(routes, Authentication::disabled(), shutdown, status)
    });

    let database = health.task("database");
    let begun = tokio::select! {
        begun = start::begin(&config.outbox, &config.database, Pools { work: &pool, requests: &requests }, SCHEMA, database) => begun,
        () = signal.received() => return Ok(Exit::Stopped),
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(unfit) => return Ok(unfit.log()),
    };
    let (transactions, hand_over) = begun.start_transactions(&config.transactions, &mut tasks, &exposition)?;

    let authentication = Authentication::start(config.auth, &mut tasks)?;
    let api = listen(Port::Api, config.http, 2, config.shutdown.grace)?;
    let routes = booking::routes(transactions);
    tasks.spawn("api", |shutdown, status| api.serve(routes, authentication, shutdown, status));
    probes.started();
    let exit = tasks.run(signal, config.shutdown).await;
    hand_over.end().await;
    Ok(exit)
}

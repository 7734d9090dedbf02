//! A parcel is booked over HTTP, and that is announced by the outbox: once, whatever breaks. `parcels migrate`, then `parcels`.

mod booking;
mod config;

use std::{process::ExitCode, time::Duration};

use config::Config;
use outbox::start::{self, Pools, Schema};
use shared::{
    auth::Authentication,
    database::{self, Migrate, Tables},
    health::Health,
    http::{Port, listen},
    lifecycle::{Exit, Shutdown, StopSignal, Tasks},
    management::{Probes, exposition::Exposition},
    telemetry::Telemetry,
    terminal,
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
    let done = match std::env::args().nth(1).as_deref() {
        Some("migrate") => database::migrate(&config.database, &TABLES, Migrate::default()).await.map(|found| {
            found.map_or(Exit::Stopped, |found| {
                terminal::complain(found);
                Exit::WrongSettings
            })
        }),
        _ => serve(config).await,
    };
    done.unwrap_or_else(|error| {
        terminal::complain(format_args!("{error:#}"));
        Exit::Failed
    })
    .into()
}

async fn serve(config: Config) -> anyhow::Result<Exit> {
    let _telemetry = Telemetry::start(&config.telemetry, "parcels")?;
    let (mut signal, health, shutdown) = (StopSignal::new()?, Health::default(), Shutdown::default());
    let (pool, requests) = (config.database.pool("parcels")?, config.database.request_pool("parcels requests")?);
    let probes = Probes::new(health.clone(), shutdown.clone(), pool.clone(), &MIGRATIONS);
    let exposition = Exposition::start(&config.metrics, env!("CARGO_PKG_VERSION"), outbox::metrics::ALL)?;
    exposition.of_database(&pool, outbox::metrics::of_database, &config.metrics);
    let mut tasks = Tasks::new(health.clone(), shutdown.clone());

    let server = listen(Port::Management, config.management.http.clone(), 1, Duration::from_secs(1))?;
    tasks.spawn("management", {
        let (probes, metrics, shutdown) = (probes.routes(), exposition.routes(), shutdown.clone());
        let routes = move |routes: &mut _| {
            probes(routes);
            metrics(routes);
        };
        |status| server.serve(routes, Authentication::disabled(), shutdown, status)
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
    let (transactions, hand_over) =
        begun.start_transactions(&config.transactions, &mut tasks, &shutdown, &exposition)?;

    let (authentication, keys) = Authentication::new(config.auth)?;
    if let Some(keys) = keys {
        let shutdown = shutdown.clone();
        tasks.spawn("issuer", |status| keys.run(shutdown, status));
    }
    let api = listen(Port::Api, config.http, 2, config.shutdown.grace)?;
    tasks.spawn("api", {
        let (routes, shutdown) = (booking::routes(transactions), shutdown.clone());
        |status| api.serve(routes, authentication, shutdown, status)
    });
    probes.started();
    let exit = tasks.run(signal, config.shutdown).await;
    hand_over.end().await;
    Ok(exit)
}

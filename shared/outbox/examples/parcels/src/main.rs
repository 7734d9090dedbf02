//! A parcel is booked over HTTP, and that is announced by the outbox: once, whatever breaks. `parcels migrate`, then `parcels`.

mod booking;
mod config;

use std::process::ExitCode;

use config::Config;
use outbox::start::{self, Pools, Schema};
use shared::{
    process::{Basis, Command, Process},
    runtime::{
        database::{self, Tables},
        lifecycle::{Exit, StopSignal, ended},
        telemetry::Telemetry,
        terminal,
    },
    web::{
        auth::Authentication,
        http::{Port, listen},
    },
};
use sqlx::migrate::Migrator;

const VERSION: &str = env!("CARGO_PKG_VERSION");
static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");
const TABLES: Tables = Tables { service: "parcels", migrations: &MIGRATIONS, mark: "parcels" };
const SCHEMA: Schema = Schema { tables: TABLES, needed: &[("parcels", "INSERT")] };

#[tokio::main]
async fn main() -> ExitCode {
    let _failpoints = fail::FailScenario::setup();
    let command = Command::given("parcels", VERSION);
    let loaded = Config::load().inspect_err(|mistakes| mistakes.iter().for_each(terminal::complain));
    let Ok(config) = loaded else { return Exit::WrongSettings.into() };
    ended(match command {
        Command::Migrate(how) => database::migrate(&config.database, &TABLES, how).await,
        Command::Serve => serve(config).await,
    })
}

async fn serve(config: Config) -> anyhow::Result<Exit> {
    let telemetry = Telemetry::start(&config.telemetry, "parcels")?;
    let mut signal = StopSignal::new()?;
    let (database, metrics, task_hung_after) = (&config.database, &config.metrics, config.task_hung_after);
    let basis = Basis { tables: TABLES, version: VERSION, database, metrics, task_hung_after };
    let mut process = Process::begin(basis, outbox::metrics::ALL, &telemetry)?;
    process.exposition.of_database(&process.pool, outbox::metrics::of_database, metrics);
    process.show(&config.management)?;
    let Process { pool, requests, probes, exposition, mut tasks, .. } = process;

    let (pools, status) = (Pools { work: &pool, requests: &requests }, probes.health.task("database"));
    let begun = tokio::select! {
        begun = start::begin(&config.outbox, database, pools, SCHEMA, status) => begun,
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

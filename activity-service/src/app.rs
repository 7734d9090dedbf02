//! Starts everything and waits for its end. The only file that knows all others, the only one that
//! spawns the tasks of counting.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shared::{
    operators::{
        audit::Deed,
        management::{self, Probes, exposition::Exposition},
    },
    process::{Basis, Process},
    runtime::{
        at_once::AtOnce,
        database::{self, Pool, Tables},
        health::{Health, TaskStatus},
        kafka::topics::{Away, Watch},
        lifecycle::{Exit, StopSignal, Tasks, told_once},
        telemetry::Telemetry,
        terminal,
    },
    web::{
        auth::Authentication,
        http::{Port, listen},
    },
};
use sqlx::migrate::Migrator;
use tokio::sync::{mpsc, watch};

use crate::{
    audit, calendar,
    config::Config,
    consumer::{
        continuity::Continuity,
        counting::{self, Counting},
        elsewhere::Elsewhere,
        group::Group,
        lag::{InHand, Lag},
        reading::{self, Member},
        watermarks::Broker,
    },
    gauges,
    http::{self, Api},
    live::Live,
    metrics, pause,
    progress::Progress,
    quarantine::Room,
    retention::Retention,
};

pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/activity");

/// Its tables, told from those of others.
pub const TABLES: Tables = Tables { service: "activity-service", migrations: &MIGRATIONS, mark: "processed_messages" };

/// What is done with its tables.
const NEEDED: [(&str, &str); 28] = [
    ("activity_types", "SELECT, INSERT, UPDATE"),
    ("audit", "SELECT, INSERT"),
    ("business_calendar", "SELECT, INSERT, UPDATE"),
    ("complete_days", "SELECT, INSERT"),
    ("consumer_positions", "SELECT, INSERT, UPDATE"),
    ("consumption_gaps", "SELECT, INSERT, DELETE"),
    ("consumption_gaps (state, to_offset, closed_at, closed_by, reason)", "UPDATE"),
    ("daily_activities", "SELECT"),
    ("daily_activity_shards", "SELECT, INSERT, UPDATE"),
    ("differing_figures", "SELECT, INSERT, UPDATE, DELETE"),
    ("differing_minutes", "SELECT"),
    ("drop_key_partition", "EXECUTE"),
    ("empty_key_partition", "EXECUTE"),
    ("hourly_activity_shards", "SELECT, INSERT, UPDATE"),
    ("key_day_ends", "SELECT, INSERT, DELETE"),
    ("key_days", "SELECT"),
    ("key_horizon", "SELECT, UPDATE"),
    ("lock_key_partition", "EXECUTE"),
    ("make_key_partition", "EXECUTE"),
    ("message_copies", "SELECT, INSERT, UPDATE, DELETE"),
    ("pause", "SELECT, INSERT, UPDATE, DELETE"),
    ("processed_messages", "SELECT, INSERT"),
    ("processed_messages_undated", "SELECT, DELETE"),
    ("quarantine", "SELECT, INSERT, DELETE"),
    (
        "quarantine (identity, state, reason, detail, activity_type_code, message_ref, corrected_value, resolved_at, \
         resolved_by, resolution)",
        "UPDATE",
    ),
    ("quarantine_copies", "SELECT, INSERT, UPDATE, DELETE"),
    ("source_minutes", "SELECT, INSERT, UPDATE, DELETE"),
    ("sources", "SELECT, INSERT, UPDATE"),
];

/// Reads are short, and Postgres is what limits them.
const API_WORKERS: usize = 2;

/// The command `serve`.
pub async fn serve(config: Config) -> Exit {
    let telemetry = match Telemetry::start(&config.telemetry, "activity-service") {
        Ok(telemetry) => telemetry,
        Err(error) => {
            terminal::complain(told_once(&error));
            return Exit::Failed;
        }
    };
    match run(config, &telemetry).await {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot start");
            Exit::Failed
        }
    }
}

async fn run(config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
    let mut signal = StopSignal::new()?;
    let (mut service, probes) = Service::new(config, telemetry)?;
    let health = probes.health.clone();
    let authentication = Authentication::start(service.config.auth.clone(), &mut service.tasks)?;
    let deeds = service.management(&probes, telemetry, &authentication)?;
    let topics = match service.topics().await? {
        Ok(watch) => watch,
        Err(exit) => return Ok(exit),
    };
    let ready = tokio::select! {
        ready = service.database_ready(health.task("database")) => ready,
        () = signal.received() => return Ok(Exit::Stopped),
    };
    let time_zone = match ready {
        Ok(zone) => zone,
        Err(exit) => return Ok(exit),
    };
    service.calendar(&time_zone, &probes);
    service.api(&time_zone, authentication, &health)?;
    service.audit(deeds);
    let broker = Broker::new(&service.config.kafka, &service.config.consumer.group_id)?;
    service.retention(&broker);
    service.progress(&broker, &time_zone);
    let away = service.watch(topics);
    service.consumer(&broker, time_zone, away)?;
    probes.started();
    Ok(service.tasks.run(signal, service.config.shutdown).await)
}

/// What the parts of the service have in common, as it starts: a method each.
struct Service {
    config: Config,
    pool: Pool,
    requests: Pool,
    exposition: Exposition,
    tasks: Tasks,
}

impl Service {
    fn new(config: Config, telemetry: &Telemetry) -> anyhow::Result<(Self, Probes)> {
        let basis = Basis {
            tables: TABLES,
            version: env!("CARGO_PKG_VERSION"),
            database: &config.database,
            metrics: &config.metrics.shared,
            task_hung_after: config.task_hung_after,
        };
        let process = Process::begin(basis, metrics::ALL, telemetry)?;
        let Process { pool, requests, mut probes, exposition, tasks, .. } = process;
        // Callers are answered by no other.
        probes.pool = requests.clone();
        exposition.of_database(&pool, gauges::of_database(&config.consumer.topics), &config.metrics.shared);
        Ok((Self { config, pool, requests, exposition, tasks }, probes))
    }

    /// What operators do at its port comes out for the audit.
    fn management(
        &mut self,
        probes: &Probes,
        telemetry: &Telemetry,
        authentication: &Authentication,
    ) -> anyhow::Result<mpsc::Receiver<Deed>> {
        let server = listen(Port::Management, self.config.management.http.clone(), 1, self.config.shutdown.grace)?;
        let (deeds, done) = shared::operators::audit::deeds();
        let operators = self.config.management.operators(authentication);
        let routes = management::routes(probes, &self.exposition, &telemetry.level, operators, deeds);
        self.tasks
            .spawn("management", |shutdown, status| server.serve(routes, Authentication::disabled(), shutdown, status));
        Ok(done)
    }

    async fn topics(&self) -> anyhow::Result<Result<Watch, Exit>> {
        Watch::begin(&self.config.kafka, self.config.consumer.topics.clone(), self.config.expected.clone()).await
    }

    /// Waits for the database, and for whoever mends what is wrong with it, then sees whether it is the right one.
    async fn database_ready(&self, status: TaskStatus) -> Result<String, Exit> {
        let settings = &self.config.database;
        let attempt = async || {
            let found = fits(&self.pool, settings, &self.config.time_zone).await?;
            if found.is_ok() {
                database::compare_limits(&self.requests, settings.max_connections).await?;
            }
            Ok::<_, sqlx::Error>(found)
        };
        for pause in database::backoff() {
            match attempt().await {
                Ok(found) => {
                    status.ok();
                    return found;
                }
                Err(error) => status.failing(&error, "waiting for the database"),
            }
            tokio::time::sleep(pause).await;
        }
        unreachable!("the back-off never ends")
    }

    fn calendar(&mut self, time_zone: &str, probes: &Probes) {
        let zone = &self.config.time_zone;
        if time_zone != zone {
            let asked = "the database does not know the time zone by its name and is asked for another name of it";
            tracing::warn!(zone, name = time_zone, "{asked}");
        }
        probes.needs("calendar");
        let (pool, zone) = (self.pool.clone(), time_zone.to_owned());
        self.tasks.spawn("calendar", |shutdown, status| calendar::Watch { pool, zone, status }.run(shutdown));
    }

    /// The listener, and the one look at the figures for all streams.
    fn api(&mut self, time_zone: &str, authentication: Authentication, health: &Health) -> anyhow::Result<()> {
        let server = listen(Port::Api, self.config.http.clone(), API_WORKERS, self.config.shutdown.grace)?;
        let (topics, time_zone) = (self.config.consumer.topics.clone(), time_zone.to_owned());
        let live = Live::new(self.requests.clone(), topics.clone(), time_zone.clone(), self.config.max_streams);
        self.exposition.at_scrape({
            let live = Arc::clone(&live);
            move || metrics::STREAMS.set_count(live.streams() as u64)
        });
        let looking = Arc::clone(&live);
        self.tasks.spawn("streams", |shutdown, status| looking.run(shutdown, status));
        let api = Api { pool: self.requests.clone(), time_zone, topics, live };
        let scopes = self.config.auth.scopes();
        let routes = http::routes(api, self.exposition.clone(), health.clone(), &self.config.pages, scopes.as_ref());
        self.tasks.spawn("api", |shutdown, status| server.serve(routes, authentication, shutdown, status));
        Ok(())
    }

    fn audit(&mut self, deeds: mpsc::Receiver<Deed>) {
        let pool = self.pool.clone();
        self.tasks.spawn("audit", |shutdown, status| audit::run(pool, deeds, shutdown, status));
    }

    fn retention(&mut self, broker: &Broker) {
        let (pool, broker, settings) = (self.pool.clone(), broker.clone(), self.config.retention.clone());
        let retention = Retention { pool, broker, settings };
        self.tasks.spawn("retention", |shutdown, status| retention.run(shutdown, status));
    }

    fn progress(&mut self, broker: &Broker, time_zone: &str) {
        let progress = Progress {
            broker: broker.clone(),
            topic: self.config.consumer.progress_topic.clone(),
            topics: self.config.consumer.topics.clone(),
            time_zone: time_zone.to_owned(),
            pool: self.pool.clone(),
        };
        self.tasks.spawn("progress", |shutdown, status| progress.run(shutdown, status));
    }

    fn watch(&mut self, topics: Watch) -> Away {
        let away = topics.away();
        self.tasks.spawn("topics", |shutdown, status| topics.run(shutdown, status));
        away
    }

    /// From Kafka into the figures.
    fn consumer(&mut self, broker: &Broker, time_zone: String, away: Away) -> anyhow::Result<()> {
        let group = Arc::<Group>::default();
        let member = Member::join(&self.config.kafka, &self.config.consumer, &group)?;
        self.exposition.at_scrape({
            let group = Arc::clone(&group);
            move || metrics::ASSIGNED.set_count(group.assigned().len() as u64)
        });
        self.tasks.spawn("lag", {
            let every = self.config.metrics.lag_every;
            let lag = Lag {
                broker: broker.clone(),
                group: Arc::clone(&group),
                every,
                seen: BTreeMap::new(),
                empty: BTreeMap::new(),
            };
            |shutdown, status| lag.run(shutdown, status)
        });
        self.tasks.spawn("elsewhere", {
            let (pool, broker, group) = (self.pool.clone(), broker.clone(), Arc::clone(&group));
            let topics = self.config.consumer.topics.clone();
            let elsewhere = Elsewhere { pool, broker, group, topics, waits: BTreeMap::new() };
            |shutdown, status| elsewhere.run(shutdown, status)
        });
        self.tasks.spawn("continuity", {
            let (pool, broker, group) = (self.pool.clone(), broker.clone(), Arc::clone(&group));
            |shutdown, status| {
                Continuity { pool, broker, group, status, behind: BTreeMap::new(), read_again: BTreeSet::new() }
                    .run(shutdown)
            }
        });
        // One batch waits while another is counted and a third is collected.
        let (read, batches) = mpsc::channel(1);
        let in_hand = InHand::default();
        self.exposition.at_scrape(in_hand.gauge());
        self.tasks.spawn("counting", {
            let (pool, settings) = (self.pool.clone(), self.config.consumer.clone());
            let (at_once, room) = (AtOnce::default(), Room::new(self.config.quarantine));
            |shutdown, status| {
                let counting = Counting { pool, time_zone, settings, group, shutdown, in_hand, status, at_once, room };
                counting::run(counting, batches)
            }
        });
        let (seen, pause) = watch::channel(None);
        self.tasks.spawn("pause", {
            let pool = self.pool.clone();
            |shutdown, status| pause::watch(pool, seen, shutdown, status)
        });
        let settings = self.config.consumer.clone();
        self.tasks
            .spawn("consumer", |shutdown, status| reading::read(member, settings, read, pause, shutdown, away, status));
        Ok(())
    }
}

/// The name by which the database is to be asked for the time zone, or how the process is to end, which is said.
///
/// # Errors
/// The database's.
pub async fn fits(
    pool: &Pool,
    settings: &database::Settings,
    time_zone: &str,
) -> Result<Result<String, Exit>, sqlx::Error> {
    if let Some(found) = settings.unfit_pooler().await? {
        terminal::complain(format_args!("database.url: {found}"));
        return Ok(Err(Exit::WrongSettings));
    }
    if let Some(found) = database::shortcoming(pool, &TABLES).await? {
        terminal::complain(format_args!("database.url: {found}"));
        return Ok(Err(Exit::WrongSettings));
    }
    if !schema_fits(pool).await? {
        return Ok(Err(Exit::OldSchema));
    }
    database::may_work(pool, &NEEDED).await?;
    Ok(calendar::keep(pool, time_zone).await?.map_err(|refused| {
        terminal::complain(refused);
        Exit::WrongSettings
    }))
}

/// Whether it is as new as this program needs; else that is said.
///
/// # Errors
/// The database's.
pub async fn schema_fits(pool: &Pool) -> Result<bool, sqlx::Error> {
    let fits = database::schema_fits(pool, &MIGRATIONS).await?;
    if !fits {
        terminal::complain("database.url: the schema is older than this program needs: run activity-service migrate");
    }
    Ok(fits)
}

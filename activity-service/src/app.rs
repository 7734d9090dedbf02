//! Starts everything and waits for its end. The only file that knows all others, the only one that
//! spawns tasks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use shared::{
    auth::Authentication,
    database::{self, Failure, Pool, Tables},
    health::{Component, Health, Probes},
    http::listen,
    kafka::topics::{Topics, Watch},
    lifecycle::{Exit, Shutdown, StopSignal, Tasks, told_once},
    management,
    metrics::exposition::Exposition,
    telemetry::Telemetry,
    terminal,
};
use sqlx::{Connection, migrate::Migrator};
use tokio::sync::{mpsc, watch};

use crate::{
    audit, calendar, commands,
    config::Config,
    consumer::{
        at_once::AtOnce,
        continuity::Continuity,
        counting::{self, Counting},
        group::Group,
        lag::{InHand, Lag},
        reading::{self, Member},
        watermarks::Broker,
    },
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
const NEEDED: [(&str, &str); 25] = [
    ("activity_types", "SELECT, INSERT, UPDATE"),
    ("audit", "SELECT, INSERT"),
    ("business_calendar", "SELECT, INSERT, UPDATE"),
    ("complete_days", "SELECT, INSERT"),
    ("consumer_positions", "SELECT, INSERT, UPDATE"),
    ("consumption_gaps", "SELECT, INSERT, UPDATE, DELETE"),
    ("daily_activities", "SELECT"),
    ("daily_activity_shards", "SELECT, INSERT, UPDATE"),
    ("differing_figures", "SELECT, INSERT, UPDATE, DELETE"),
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
    ("quarantine", "SELECT, INSERT, UPDATE, DELETE"),
    ("quarantine_copies", "SELECT, INSERT, UPDATE, DELETE"),
    ("source_minutes", "SELECT, INSERT, UPDATE, DELETE"),
    ("sources", "SELECT, INSERT, UPDATE"),
];

/// Reads are short, and Postgres is what limits them.
const API_WORKERS: usize = 2;

/// How long a start waits to hear of the topics' settings. Without Kafka it goes on without.
const TOPICS_WITHIN: Duration = Duration::from_secs(1);

/// Before the database is asked again that went away while it was looked at.
const PAUSE: Duration = Duration::from_millis(200);

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

/// The command `migrate`.
pub async fn migrate(config: &Config, how: database::Migrate) -> Exit {
    match database::migrate(&config.database, &TABLES, how).await {
        Ok(None) => Exit::Stopped,
        Ok(Some(found)) => {
            terminal::complain(format_args!("database.url: {found}"));
            Exit::WrongSettings
        }
        Err(error) => {
            terminal::complain(told_once(&error));
            Exit::Failed
        }
    }
}

/// The command `quarantine`.
pub async fn quarantine(config: &Config, command: commands::Quarantine) -> Exit {
    on_the_database(config, "activity-service quarantine", async |pool, zone| command.run(pool, zone).await).await
}

/// The command `gaps`.
pub async fn gaps(config: &Config, command: commands::Gaps) -> Exit {
    on_the_database(config, "activity-service gaps", async |pool, _| command.run(pool).await).await
}

/// The command `calendar`. It is for when the setting and what is kept do not agree, so that is not asked.
pub async fn calendar(config: &Config, command: commands::Calendar) -> Exit {
    let work = async {
        let pool = config.database.pool("activity-service calendar")?;
        if !schema_fits(&pool).await.context("the database cannot be used")? {
            return Ok(Exit::OldSchema);
        }
        command.run(&pool).await.map(|()| Exit::Stopped)
    };
    told(work.await)
}

/// The command `figures`.
pub async fn figures(config: &Config, command: commands::FiguresCommand) -> Exit {
    on_the_database(config, "activity-service figures", async |pool, zone| {
        command.run(pool, &config.consumer.topics, zone).await
    })
    .await
}

/// The command `pause`.
pub async fn pause(config: &Config, command: commands::Pause) -> Exit {
    on_the_database(config, "activity-service pause", async |pool, _| command.run(pool).await).await
}

/// The command `resume`.
pub async fn resume(config: &Config, command: commands::Resume) -> Exit {
    on_the_database(config, "activity-service resume", async |pool, _| command.run(pool).await).await
}

async fn on_the_database(
    config: &Config,
    name: &str,
    command: impl AsyncFnOnce(&Pool, &str) -> anyhow::Result<()>,
) -> Exit {
    let work = async {
        database::reach(&config.database).await?.close().await?;
        let pool = config.database.pool(name)?;
        match fits(&pool, &config.database.address, &config.time_zone).await.context("the database cannot be used")? {
            Ok(zone) => command(&pool, &zone).await.map(|()| Exit::Stopped),
            Err(exit) => Ok(exit),
        }
    };
    told(work.await)
}

fn told(done: anyhow::Result<Exit>) -> Exit {
    done.unwrap_or_else(|error| {
        if terminal::is_closed_pipe(&error) {
            return Exit::Stopped;
        }
        terminal::complain(told_once(&error));
        Exit::Failed
    })
}

async fn run(config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
    let mut signal = StopSignal::new()?;
    let (health, shutdown, grace) = (Health::default(), Shutdown::default(), config.shutdown.grace);
    let pool = config.database.pool("activity-service")?;
    let requests = config.database.request_pool("activity-service requests")?;
    let probes = Probes::new(health.clone(), shutdown.clone(), pool.clone(), &MIGRATIONS);
    let mut tasks = Tasks::new(health.clone(), shutdown.clone());

    let exposition = Exposition::start(&config.metrics.shared, env!("CARGO_PKG_VERSION"), metrics::ALL)?;
    health.watch(config.task_hung_after);
    exposition.at_scrape({
        let health = health.clone();
        move || health.tell()
    });
    exposition.at_scrape(telemetry.tell());
    exposition.of_pool("work", &pool);
    exposition.of_pool("requests", &requests);
    exposition.of_database(&pool, metrics::of_database, &config.metrics.shared);
    tasks.spawn("metrics", |page| exposition.clone().run(shutdown.clone(), page));

    if let Some(renewal) = config.database.renewal(&[&pool, &requests]) {
        tasks.spawn("credentials", |page| renewal.run(shutdown.clone(), page));
    }
    let needs_token = config.auth.needs_token();
    let (authentication, keys) = Authentication::new(config.auth)?;
    if let Some(keys) = keys {
        tasks.spawn("issuer", |page| keys.run(shutdown.clone(), page));
    }
    let operators = config.management.operators(&authentication);
    let server = listen("management", config.management.http, 1, grace)?;
    let (deeds, done) = shared::audit::deeds();
    let routes = management::routes(&probes, &exposition, &telemetry.level, operators, deeds);
    tasks.spawn("management", |page| server.serve(routes, Authentication::disabled(), shutdown.clone(), page));

    let topics = Topics::new(&config.kafka, config.consumer.topics.clone(), config.expected)?;
    if let Some(refusal) = topics.refusal(TOPICS_WITHIN).await {
        eprintln!("{refusal}");
        return Ok(Exit::WrongSettings);
    }
    let page = health.component("database");
    let ready = tokio::select! {
        ready = database_ready(&pool, &config.database.address, &config.time_zone, &page) => ready,
        () = signal.received() => return Ok(Exit::Stopped),
    };
    let time_zone = match ready? {
        Ok(zone) => zone,
        Err(exit) => return Ok(exit),
    };
    if time_zone != config.time_zone {
        let asked = "the database does not know the time zone by its name and is asked for another name of it";
        tracing::warn!(zone = config.time_zone, name = time_zone, "{asked}");
    }
    probes.needs("calendar");
    tasks.spawn("calendar", |page| {
        calendar::Watch { pool: pool.clone(), zone: time_zone.clone(), page }.run(shutdown.clone())
    });

    let api = listen("api", config.http, API_WORKERS, grace)?;
    let topics_read = config.consumer.topics.clone();
    let live = Live::new(requests.clone(), topics_read.clone(), time_zone.clone(), config.max_streams);
    exposition.at_scrape({
        let live = Arc::clone(&live);
        move || metrics::STREAMS.set_count(live.streams() as u64)
    });
    tasks.spawn("streams", |page| Arc::clone(&live).run(shutdown.clone(), page));
    let api_state = Api { pool: requests, time_zone: time_zone.clone(), topics: topics_read, live };
    let routes = http::routes(api_state, exposition.clone(), &config.pages, needs_token);
    tasks.spawn("api", |page| api.serve(routes, authentication, shutdown.clone(), page));

    tasks.spawn("audit", |page| audit::run(pool.clone(), done, shutdown.clone(), page));

    let (seen, pause) = watch::channel(None);
    tasks.spawn("pause", |page| pause::watch(pool.clone(), seen, shutdown.clone(), page));

    let broker = Broker::new(&config.kafka, &config.consumer.group_id)?;
    let retention = Retention { pool: pool.clone(), broker: broker.clone(), settings: config.retention };
    tasks.spawn("retention", |page| retention.run(shutdown.clone(), page));

    tasks.spawn("progress", |page| {
        let progress = Progress {
            broker: broker.clone(),
            topic: config.consumer.progress_topic.clone(),
            topics: config.consumer.topics.clone(),
            time_zone: time_zone.clone(),
            pool: pool.clone(),
        };
        progress.run(shutdown.clone(), page)
    });

    let group = Arc::<Group>::default();
    let member = Member::join(&config.kafka, &config.consumer, &group)?;
    exposition.at_scrape({
        let group = Arc::clone(&group);
        move || metrics::ASSIGNED.set_count(group.assigned().len() as u64)
    });
    let watch = Watch::new(topics);
    let away = watch.away();
    tasks.spawn("topics", |page| watch.run(shutdown.clone(), page));
    tasks.spawn("lag", |page| {
        let lag = Lag {
            broker: broker.clone(),
            group: Arc::clone(&group),
            every: config.metrics.lag_every,
            seen: BTreeMap::new(),
        };
        lag.run(shutdown.clone(), page)
    });
    tasks.spawn("continuity", |page| {
        let (pool, group) = (pool.clone(), group.clone());
        Continuity { pool, broker, group, page, behind: BTreeMap::new() }.run(shutdown.clone())
    });
    // One batch waits while another is counted and a third is collected.
    let (read, batches) = mpsc::channel(1);
    let in_hand = InHand::default();
    exposition.at_scrape(in_hand.gauge());
    tasks.spawn("counting", |page| {
        let backoff = config.consumer.backoff();
        let shutdown = shutdown.clone();
        let (at_once, room) = (AtOnce::default(), Room::new(config.quarantine));
        let counting = Counting { pool, time_zone, backoff, group, shutdown, in_hand, page, at_once, room };
        counting::run(counting, batches)
    });
    let from = (shutdown, away);
    tasks.spawn("consumer", |page| reading::read(member, config.consumer, read, pause, from, page));

    probes.started();
    Ok(tasks.run(signal, config.shutdown).await)
}

/// Waits for the database, then sees whether it is the right one.
async fn database_ready(
    pool: &Pool,
    address: &database::Address,
    time_zone: &str,
    page: &Component,
) -> anyhow::Result<Result<String, Exit>> {
    loop {
        database::reached(pool, page).await;
        match fits(pool, address, time_zone).await {
            // It went away again between two questions.
            Err(error) if Failure::of(&error) == Failure::Outage => tokio::time::sleep(PAUSE).await,
            other => return Ok(other?),
        }
    }
}

/// The name by which the database is to be asked for the time zone.
async fn fits(pool: &Pool, address: &database::Address, time_zone: &str) -> Result<Result<String, Exit>, sqlx::Error> {
    if !database::keeps_prepared_statements(address, "activity-service start").await? {
        let found =
            "leads to a pooler that does not keep prepared statements; see connection poolers in docs/operations.md";
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

async fn schema_fits(pool: &Pool) -> Result<bool, sqlx::Error> {
    let fits = database::schema_fits(pool, &MIGRATIONS).await?;
    if !fits {
        terminal::complain("database.url: the schema is older than this program needs: run activity-service migrate");
    }
    Ok(fits)
}

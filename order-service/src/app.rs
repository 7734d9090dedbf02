//! Puts the service together, in the order in which its parts need each other.
//!
//! Each part is fed by a channel from the one before it and ends when that channel closes, so a
//! stop runs down the same way as the data: listener, placement, queue, publisher, marks.

use std::time::Duration;

use outbox::{
    queue::Queue,
    start::{self, Schema},
};
use shared::{
    auth::Authentication,
    database::{Pool, Tables},
    health::{Health, Probes},
    http::listen,
    kafka::topics::{Topics, Watch},
    lifecycle::{Exit, Shutdown, StopSignal, Tasks},
    management,
    metrics::exposition::Exposition,
    telemetry::Telemetry,
};
use sqlx::migrate::Migrator;

use crate::{
    audit, change,
    config::Config,
    http, metrics, placement,
    retention::{LookedAt, Retention},
};

/// The schema this version needs.
pub static SCHEMA: Migrator = sqlx::migrate!("../migrations/orders");

/// Its tables, told from those of others.
pub const TABLES: Tables = Tables { service: "order-service", migrations: &SCHEMA, mark: "order_number" };

/// What is done with its own tables.
const NEEDED: [(&str, &str); 6] = [
    ("audit", "SELECT, INSERT"),
    ("idempotency_keys", "SELECT, INSERT, UPDATE, DELETE"),
    ("order_number", "USAGE"),
    ("orders", "SELECT, INSERT"),
    ("orders (status, version, customer_ref)", "UPDATE"),
    ("pause", "INSERT, UPDATE, DELETE"),
];

/// How long a start waits to hear of the topic's settings. Without Kafka it goes on without.
const TOPIC_WITHIN: Duration = Duration::from_secs(1);

/// Runs the service until a signal or a failure ends it.
///
/// # Errors
/// An address cannot be had, or librdkafka refuses its settings.
pub async fn serve(config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
    let mut signal = StopSignal::new()?;
    let (health, shutdown) = (Health::default(), Shutdown::default());
    let pool = config.database.pool("order-service")?;
    let requests = config.database.request_pool("order-service requests")?;
    let probes = Probes::new(health.clone(), shutdown.clone(), pool.clone(), &SCHEMA);
    let mut tasks = Tasks::new(health.clone(), shutdown.clone());
    let exposition = Exposition::start(&config.metrics, env!("CARGO_PKG_VERSION"), &metrics::all())?;
    health.watch(config.task_hung_after);
    exposition.at_scrape({
        let health = health.clone();
        move || health.tell()
    });
    exposition.at_scrape(telemetry.tell());
    exposition.of_pool("work", &pool);
    exposition.of_pool("requests", &requests);
    exposition.of_database(&pool, metrics::of_database, &config.metrics);
    tasks.spawn("metrics", {
        let (exposition, shutdown) = (exposition.clone(), shutdown.clone());
        |page| exposition.run(shutdown, page)
    });

    if let Some(renewal) = config.database.renewal(&[&pool, &requests]) {
        tasks.spawn("credentials", {
            let shutdown = shutdown.clone();
            |page| renewal.run(shutdown, page)
        });
    }
    let (authentication, keys) = Authentication::new(config.auth.clone())?;
    if let Some(keys) = keys {
        tasks.spawn("issuer", {
            let shutdown = shutdown.clone();
            |page| keys.run(shutdown, page)
        });
    }
    let server = listen("management", config.management.http.clone(), 1, Duration::from_secs(1))?;
    let (deeds, done) = shared::audit::deeds();
    tasks.spawn("management", {
        let operators = config.management.operators(&authentication);
        let routes = management::routes(&probes, &exposition, &telemetry.level, operators, deeds);
        let shutdown = shutdown.clone();
        |page| server.serve(routes, Authentication::disabled(), shutdown, page)
    });

    let topics = {
        let topic = &config.outbox.topic;
        Topics::new(&config.outbox.kafka, vec![topic.name.clone()], topic.expected.clone())?
    };
    if let Some(refusal) = topics.refusal(TOPIC_WITHIN).await {
        eprintln!("{refusal}");
        return Ok(Exit::WrongSettings);
    }
    let schema = Schema { tables: TABLES, needed: &NEEDED };
    let pools = (&pool, &requests);
    let begun = tokio::select! {
        begun = start::begin(&config.outbox, &config.database, pools, schema, health.component("database")) => begun,
        () = signal.received() => return Ok(Exit::Stopped),
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(unfit) => return Ok(unfit.tell()),
    };
    tasks.spawn("audit", {
        let (pool, shutdown) = (pool.clone(), shutdown.clone());
        |page| audit::run(pool, done, shutdown, page)
    });
    let (queue, hand_over) = begun.start(&mut tasks, &shutdown, &exposition)?;
    let around = (&shutdown, (&exposition, &health), authentication);
    spawn_flow(&mut tasks, &config, (&pool, requests), queue, around)?;
    tasks.spawn("topics", {
        let shutdown = shutdown.clone();
        |page| Watch::new(topics).run(shutdown, page)
    });
    probes.started();
    let exit = tasks.run(signal, config.shutdown).await;
    hand_over.end().await;
    Ok(exit)
}

/// Spawns the tasks an order passes through.
fn spawn_flow(
    tasks: &mut Tasks,
    config: &Config,
    (pool, requests): (&Pool, Pool),
    queue: Queue,
    (shutdown, (exposition, health), authentication): (&Shutdown, (&Exposition, &Health), Authentication),
) -> anyhow::Result<()> {
    let (placement, line) = {
        let kept_for = config.retention.idempotency_keys;
        placement::line(&config.placement, kept_for, pool.clone(), queue.clone())
    };
    let (changes, changer) = change::line(&config.changes, pool.clone(), queue);

    exposition.at_scrape(placement.tell());

    let api = listen("api", config.http.clone(), http_workers(), config.shutdown.grace)?;
    tasks.spawn("api", {
        let pages = http::pages::of(&config.pages, config.auth.needs_token());
        let routes = http::routes(requests, placement, changes, exposition.clone(), health.clone(), pages);
        let shutdown = shutdown.clone();
        |page| api.serve(routes, authentication, shutdown, page)
    });
    for _ in 0..config.placement.tasks {
        let line = line.clone();
        tasks.spawn("placement", |page| line.run(page));
    }
    for _ in 0..config.changes.tasks {
        let changer = changer.clone();
        tasks.spawn("changes", |page| changer.run(page));
    }
    tasks.spawn("retention", {
        let outbox = outbox::Retention { pool: pool.clone(), settings: config.outbox.retention.clone() };
        let (settings, looked_at) = (config.retention.clone(), LookedAt::default());
        let retention = Retention { outbox, pool: pool.clone(), settings, looked_at };
        let shutdown = shutdown.clone();
        |page| retention.run(shutdown, page)
    });
    Ok(())
}

fn http_workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

//! Puts the service together, in the order in which its parts need each other.
//!
//! Each part is fed by a channel from the one before it and ends when that channel closes, so a
//! stop runs down the same way as the data: listener, placement, queue, publisher, marks.

use std::time::Duration;

use shared::{
    auth::Authentication,
    database::{self, Pool, Tables},
    health::{Component, Health, Probes},
    http::listen,
    kafka::topics::{Topics, Watch},
    lifecycle::{Exit, Shutdown, StopSignal, Tasks},
    management,
    metrics::exposition::Exposition,
    telemetry::Telemetry,
};
use sqlx::migrate::Migrator;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    audit, change,
    config::Config,
    flight::Flight,
    http,
    instance::{Instance, session::Session},
    metrics,
    partitions::Partitions,
    placement,
    progress::{Progress, announcer::Announcer},
    publisher::{Lanes, Publisher, marks::Marks},
    queue::Queue,
    reload::Reloader,
    retention::{LookedAt, Retention},
};

/// The schema this version needs.
pub static SCHEMA: Migrator = sqlx::migrate!("../migrations/orders");

/// Its tables, told from those of others.
pub const TABLES: Tables = Tables { service: "order-service", migrations: &SCHEMA, mark: "order_number" };

/// What is done with its tables.
const NEEDED: [(&str, &str); 21] = [
    ("announced", "SELECT, INSERT, DELETE"),
    ("audit", "SELECT, INSERT"),
    ("counted_logs", "SELECT, INSERT, UPDATE, DELETE"),
    ("drop_outbox_partition", "EXECUTE"),
    ("drop_published_partition", "EXECUTE"),
    ("idempotency_keys", "SELECT, INSERT, UPDATE, DELETE"),
    ("instances", "SELECT, INSERT, UPDATE, DELETE"),
    ("log_progress", "SELECT, INSERT, DELETE"),
    ("make_partitions", "EXECUTE"),
    ("message_counts", "SELECT, INSERT, UPDATE, DELETE"),
    ("order_number", "USAGE"),
    ("orders", "SELECT, INSERT"),
    ("orders (status, version, customer_ref)", "UPDATE"),
    ("outbox", "SELECT, INSERT"),
    ("pause", "SELECT, INSERT, UPDATE, DELETE"),
    ("published", "SELECT, INSERT"),
    ("purge_orders", "EXECUTE"),
    ("rebroadcasts", "SELECT, INSERT, UPDATE, DELETE"),
    ("rejected_messages", "SELECT, INSERT, UPDATE, DELETE"),
    ("rejections", "SELECT, INSERT, DELETE"),
    ("told_counts", "SELECT, UPDATE"),
];

/// What handing over at the end may take, on top of `shutdown.grace`.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

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
    let exposition = Exposition::start(&config.metrics, env!("CARGO_PKG_VERSION"), metrics::ALL)?;
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

    let topics = Topics::new(&config.kafka, vec![config.topic.name.clone()], config.topic.expected.clone())?;
    if let Some(refusal) = topics.refusal(TOPIC_WITHIN).await {
        eprintln!("{refusal}");
        return Ok(Exit::WrongSettings);
    }
    let flight = Flight::new(config.publisher.max_in_flight);
    let begun = tokio::select! {
        begun = begin(&config, (&pool, &requests), &flight, health.component("database")) => begun,
        () = signal.received() => return Ok(Exit::Stopped),
    };
    let (session, instance) = match begun {
        Ok(begun) => begun,
        Err(Unfit(exit, why)) => {
            tracing::error!("{why}");
            return Ok(exit);
        }
    };
    tasks.spawn("audit", {
        let (pool, shutdown) = (pool.clone(), shutdown.clone());
        |page| audit::run(pool, done, shutdown, page)
    });
    // The session outlives the drain: without its confirmations nothing is handed over.
    let drained = CancellationToken::new();
    tasks.spawn("session", {
        let drained = drained.clone();
        |page| session.run(drained, page)
    });
    let around = (&shutdown, &exposition, authentication);
    spawn_flow(&mut tasks, &config, (&pool, requests), &instance, flight, around, drained)?;
    tasks.spawn("topics", {
        let shutdown = shutdown.clone();
        |page| Watch::new(topics).run(shutdown, page)
    });
    probes.started();
    let exit = tasks.run(signal, config.shutdown).await;
    if !matches!(timeout(HAND_OVER_WITHIN, instance.end(&pool)).await, Ok(Ok(()))) {
        tracing::warn!("could not hand over what was not sent; the next instance takes it all the same");
    }
    Ok(exit)
}

/// Waiting does not help, but somebody who does something about it.
struct Unfit(Exit, String);

/// Waits for the database and takes an identity.
async fn begin(
    config: &Config,
    (pool, requests): (&Pool, &Pool),
    flight: &Flight,
    page: Component,
) -> Result<(Session, Instance), Unfit> {
    let attempt = async || {
        if let Some(why) = unfit_for_poolers(config).await? {
            return Ok(Err(Unfit(Exit::WrongSettings, why.to_owned())));
        }
        if let Some(found) = database::shortcoming(requests, &TABLES).await? {
            return Ok(Err(Unfit(Exit::WrongSettings, format!("database.url: {found}"))));
        }
        // The first connections are one for requests and the session's: the work takes what is left.
        if !database::schema_fits(requests, &SCHEMA).await? {
            let why = "the schema is older than this version needs: run order-service migrate";
            return Ok(Err(Unfit(Exit::OldSchema, why.to_owned())));
        }
        database::may_work(requests, &NEEDED).await?;
        let begun = Session::begin(config.session.clone(), pool.clone(), flight.clone()).await?;
        database::compare_limits(requests, config.database.max_connections + 1).await?;
        Ok(Ok(begun))
    };
    for pause in database::backoff() {
        match attempt().await {
            Ok(begun) => {
                page.working();
                return begun;
            }
            Err(error) => {
                let error: sqlx::Error = error;
                if page.waiting(&error) {
                    tracing::warn!(error = %error, "waiting for the database");
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
    unreachable!("the back-off never ends")
}

/// What a pooler in between takes away, if it does.
async fn unfit_for_poolers(config: &Config) -> Result<Option<&'static str>, sqlx::Error> {
    if !database::keeps_prepared_statements(&config.database.address, "order-service start").await? {
        return Ok(Some(
            "database.url: leads to a pooler that does not keep prepared statements; see connection poolers in docs/operations.md",
        ));
    }
    if !database::is_session(&config.session.address, "order-service start").await? {
        return Ok(Some(
            "database.session_url: leads to a pooler that lends a session for one transaction at a time, but the session's \
             lock has to last: give a URL that leads to Postgres directly",
        ));
    }
    Ok(None)
}

/// Spawns the tasks an order passes through.
fn spawn_flow(
    tasks: &mut Tasks,
    config: &Config,
    (pool, requests): (&Pool, Pool),
    instance: &Instance,
    flight: Flight,
    (shutdown, exposition, authentication): (&Shutdown, &Exposition, Authentication),
    drained: CancellationToken,
) -> anyhow::Result<()> {
    let (queue, queued) = Queue::new(config.publisher.queue_capacity, instance.clone());
    let (answers, answered) = mpsc::unbounded_channel();
    let (returns, returned) = mpsc::unbounded_channel();
    let (placement, line) = {
        let kept_for = config.retention.idempotency_keys;
        placement::line(&config.placement, kept_for, pool.clone(), queue.clone())
    };
    let lanes = Lanes::new(config);
    let (changes, changer) = change::line(&config.changes, pool.clone(), queue.clone());

    exposition.at_scrape(queue.tell());
    exposition.at_scrape(flight.tell());
    exposition.at_scrape(placement.tell());

    let api = listen("api", config.http.clone(), http_workers(), config.shutdown.grace)?;
    tasks.spawn("api", {
        let pages = http::pages::of(&config.pages, config.auth.needs_token());
        let routes = http::routes(requests, placement, changes, exposition.clone(), pages);
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
    tasks.spawn("publisher", {
        let (config, instance, shutdown, lanes) = (config.clone(), instance.clone(), shutdown.clone(), lanes.clone());
        |page| async move {
            Publisher::new(&config, queued, answers, returned, (flight, instance, lanes), page)?.run(shutdown).await
        }
    });
    tasks.spawn("progress", {
        let (progress, drained) = (Progress { pool: pool.clone(), instance: instance.clone() }, drained.clone());
        |page| progress.run(drained, page)
    });
    tasks.spawn("announcer", {
        let (announcer, shutdown) = (Announcer::new(config, pool.clone(), instance.clone())?, shutdown.clone());
        |page| announcer.run(shutdown, page)
    });
    tasks.spawn("marks", {
        let (pool, settings, instance) = (pool.clone(), config.publisher.clone(), instance.clone());
        |page| async move {
            let _last_to_end = drained.drop_guard();
            Marks::new(pool, answered, returns, settings, instance, page).run().await
        }
    });
    tasks.spawn("reload", {
        let reloader = Reloader::new(&config.reload, config.publisher.queue_capacity, pool.clone(), queue, lanes);
        let shutdown = shutdown.clone();
        |page| reloader.run(shutdown, page)
    });
    tasks.spawn("partitions", {
        let (pool, instance, settings) = (pool.clone(), instance.clone(), config.partitions.clone());
        let partitions = Partitions { pool, instance, settings, kept_for: config.retention.published_messages };
        let shutdown = shutdown.clone();
        |page| partitions.run(shutdown, page)
    });
    tasks.spawn("retention", {
        let (settings, looked_at) = (config.retention.clone(), LookedAt::default());
        let retention = Retention { pool: pool.clone(), settings, looked_at };
        let shutdown = shutdown.clone();
        |page| retention.run(shutdown, page)
    });
    Ok(())
}

fn http_workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

//! Puts the service together, in the order in which its parts need each other.
//!
//! Each part is fed by a channel from the one before it and ends when that channel closes, so a
//! stop runs down the same way as the data: listener, placement, queue, publisher, marks.

use std::time::Duration;

use outbox::{
    queue::Queue,
    start::{self, Begun, Pools, Schema, Unfit},
};
use shared::{
    operators::{
        audit::Deed,
        management::{self, Probes, exposition::Exposition},
    },
    process::{Basis, Process},
    runtime::{
        database::{self, Pool, Tables},
        health::{Health, TaskStatus},
        lifecycle::{Exit, Shutdown, StopSignal, Tasks},
        telemetry::Telemetry,
    },
    web::{
        auth::Authentication,
        http::{Port, listen},
    },
};
use sqlx::migrate::Migrator;
use tokio::sync::mpsc;

use crate::{
    audit,
    cell::{self, Standing},
    change,
    config::Config,
    http, metrics, placement,
    retention::{LookedAt, Retention},
};

/// The schema this version needs.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/orders");

/// Its tables, told from those of others.
pub const TABLES: Tables = Tables { service: "order-service", migrations: &MIGRATIONS, mark: "order_number" };

/// What is done with its own tables.
const NEEDED: [(&str, &str); 9] = [
    ("audit", "SELECT, INSERT"),
    ("cell", "SELECT, INSERT, UPDATE"),
    ("idempotency_keys", "SELECT, INSERT, UPDATE, DELETE"),
    ("order_number", "USAGE"),
    ("orders", "SELECT, INSERT"),
    ("orders (status, version, customer_ref)", "UPDATE"),
    ("outbox_messages", "SELECT"),
    ("pause", "INSERT, UPDATE, DELETE"),
    ("rejected_messages (discarded_at, discarded_by, discard_reason)", "UPDATE"),
];

/// Runs the service until a signal or a failure ends it.
///
/// # Errors
/// An address cannot be had, or librdkafka refuses its settings.
pub async fn serve(config: Config, telemetry: &Telemetry) -> anyhow::Result<Exit> {
    let mut signal = StopSignal::new()?;
    let (mut service, probes) = Service::new(config, telemetry)?;
    let health = probes.health.clone();
    let authentication = Authentication::start(service.config.auth.clone(), &mut service.tasks)?;
    let deeds = service.management(&probes, telemetry, &authentication)?;
    let begun = tokio::select! {
        begun = service.begin(health.task("database")) => begun,
        () = signal.received() => return Ok(Exit::Stopped),
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(unfit) => return Ok(unfit.log()),
    };
    let of_cell = tokio::select! {
        of_cell = service.of_cell(&begun, &health) => of_cell?,
        () = signal.received() => Err(Exit::Stopped),
    };
    if let Err(exit) = of_cell {
        begun.end().await;
        return Ok(exit);
    }
    service.audit(deeds);
    let (queue, hand_over) = begun.start(&mut service.tasks, &service.exposition)?;
    service.orders(queue, authentication, &health)?;
    service.retention();
    probes.started();
    let exit = service.tasks.run(signal, service.config.shutdown).await;
    hand_over.end().await;
    Ok(exit)
}

/// What the parts of the service have in common, as it starts: a method each.
struct Service {
    config: Config,
    pool: Pool,
    requests: Pool,
    exposition: Exposition,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Service {
    fn new(config: Config, telemetry: &Telemetry) -> anyhow::Result<(Self, Probes)> {
        let basis = Basis {
            tables: TABLES,
            version: env!("CARGO_PKG_VERSION"),
            database: &config.database,
            metrics: &config.metrics,
            task_hung_after: config.task_hung_after,
        };
        let process = Process::begin(basis, &metrics::all(), telemetry)?;
        let Process { pool, requests, probes, exposition, shutdown, tasks } = process;
        exposition.of_database(&pool, metrics::of_database, &config.metrics);
        Ok((Self { config, pool, requests, exposition, shutdown, tasks }, probes))
    }

    /// What operators do at its port comes out for the audit.
    fn management(
        &mut self,
        probes: &Probes,
        telemetry: &Telemetry,
        authentication: &Authentication,
    ) -> anyhow::Result<mpsc::Receiver<Deed>> {
        let server = listen(Port::Management, self.config.management.http.clone(), 1, Duration::from_secs(1))?;
        let (deeds, done) = shared::operators::audit::deeds();
        let operators = self.config.management.operators(authentication);
        let routes = management::routes(probes, &self.exposition, &telemetry.level, operators, deeds);
        self.tasks
            .spawn("management", |shutdown, status| server.serve(routes, Authentication::disabled(), shutdown, status));
        Ok(done)
    }

    /// Looks at the topic, and waits for the database.
    async fn begin(&self, status: TaskStatus) -> Result<Begun, Unfit> {
        let schema = Schema { tables: TABLES, needed: &NEEDED };
        let pools = Pools { work: &self.pool, requests: &self.requests };
        start::begin(&self.config.outbox, &self.config.database, pools, schema, status).await
    }

    /// Sees that the database is of the cell it is said to be of. Of one that is new it is told before its first order.
    async fn of_cell(&self, begun: &Begun, health: &Health) -> anyhow::Result<Result<(), Exit>> {
        let status = health.task("database");
        match until_answered(&status, async || self.config.cell.keep(&self.pool).await).await {
            Ok(Standing::Known) => {}
            Ok(Standing::New) => {
                let by_another = async || cell::is_known(&self.pool).await.unwrap_or(false);
                if !begun.tell(by_another, &self.shutdown, &health.task("announcer")).await? {
                    return Ok(Err(Exit::Stopped));
                }
                until_answered(&status, async || cell::note_known(&self.pool).await).await;
            }
            Err(of_another) => {
                tracing::error!("{of_another}");
                return Ok(Err(Exit::WrongSettings));
            }
        }
        Ok(Ok(()))
    }

    fn audit(&mut self, deeds: mpsc::Receiver<Deed>) {
        let pool = self.pool.clone();
        self.tasks.spawn("audit", |shutdown, status| audit::run(pool, deeds, shutdown, status));
    }

    /// The listener, and the tasks to which it hands orders and their changes.
    fn orders(&mut self, queue: Queue, authentication: Authentication, health: &Health) -> anyhow::Result<()> {
        let kept_for = self.config.retention.idempotency_keys;
        let of_cell = (self.config.cell, kept_for);
        let (placement, placer) = placement::line(&self.config.placement, of_cell, self.pool.clone(), queue.clone());
        let (changes, changer) = change::line(&self.config.changes, self.pool.clone(), queue);
        self.exposition.at_scrape(placement.gauges());
        let api = listen(Port::Api, self.config.http.clone(), http_workers(), self.config.shutdown.grace)?;
        let pages = http::pages::of(&self.config.pages, self.config.auth.scopes().as_ref());
        let exposition = self.exposition.clone();
        let routes = http::routes(self.requests.clone(), placement, changes, exposition, health.clone(), pages);
        self.tasks.spawn("api", |shutdown, status| api.serve(routes, authentication, shutdown, status));
        for _ in 0..self.config.placement.tasks {
            let placer = placer.clone();
            self.tasks.spawn("placement", |_, status| placer.run(status));
        }
        for _ in 0..self.config.changes.tasks {
            let changer = changer.clone();
            self.tasks.spawn("changes", |_, status| changer.run(status));
        }
        Ok(())
    }

    fn retention(&mut self) {
        let outbox = outbox::Retention { pool: self.pool.clone(), settings: self.config.outbox.retention.clone() };
        let (settings, looked_at) = (self.config.retention.clone(), LookedAt::default());
        let retention = Retention { outbox, pool: self.pool.clone(), settings, looked_at };
        self.tasks.spawn("retention", |shutdown, status| retention.run(shutdown, status));
    }
}

/// Asks the database until it answers.
async fn until_answered<T>(status: &TaskStatus, ask: impl AsyncFn() -> Result<T, sqlx::Error>) -> T {
    for pause in database::backoff() {
        match ask().await {
            Ok(answer) => {
                status.ok();
                return answer;
            }
            Err(error) => status.failing(&error, "waiting for the database"),
        }
        tokio::time::sleep(pause).await;
    }
    unreachable!("the back-off never ends")
}

fn http_workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

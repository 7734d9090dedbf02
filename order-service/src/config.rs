//! Every setting of the service. `default.toml` and that of the outbox have the defaults and their reasons.

use std::{path::Path, time::Duration};

use outbox::{message::Service, publisher};
use shared::{
    operators::management::{self, exposition},
    runtime::{
        config::{Reader, Shown},
        database, health, kafka, lifecycle, telemetry,
    },
    web::{auth, pages},
};

use crate::{cell::Cell, format::SERVICE};

const DEFAULTS: &str = include_str!("../default.toml");
const ENVIRONMENT: &str = "ORDER_SERVICE";

#[derive(Clone, Debug)]
pub struct Config {
    pub database: database::Settings,
    pub auth: auth::Settings,
    pub http: shared::web::http::Settings,
    pub pages: pages::Settings,
    pub cell: Cell,
    pub management: management::Settings,
    pub placement: PlacementSettings,
    pub changes: ChangesSettings,
    pub outbox: outbox::Settings,
    pub retention: RetentionSettings,
    /// `health.task_hung_after`
    pub task_hung_after: Duration,
    pub metrics: exposition::Settings,
    pub telemetry: telemetry::Settings,
    pub shutdown: lifecycle::Timing,
}

#[derive(Clone, Debug)]
pub struct PlacementSettings {
    pub tasks: u32,
    pub batch_max_orders: u32,
    pub batch_max_wait: Duration,
    pub waiting_line: u32,
}

#[derive(Clone, Debug)]
pub struct ChangesSettings {
    pub tasks: u32,
    pub waiting_line: u32,
}

#[derive(Clone, Debug)]
pub struct RetentionSettings {
    pub idempotency_keys: Duration,
    /// None: they stay for ever.
    pub orders: Option<Duration>,
    pub every: Duration,
    pub batch_size: u32,
    pub pause: Duration,
}

impl Config {
    /// The settings, and the same as TOML for people.
    ///
    /// # Errors
    /// Every mistake, a line each.
    pub fn load(file: Option<&Path>) -> Result<(Self, Shown), Vec<String>> {
        Self::load_for(&[], file)
    }

    /// As [`Config::load`], for a command that uses these settings, or groups of them, only.
    ///
    /// # Errors
    /// Every mistake in them, a line each.
    pub fn load_for(groups: &'static [&'static str], file: Option<&Path>) -> Result<(Self, Shown), Vec<String>> {
        let mut settings = Reader::new(DEFAULTS, ENVIRONMENT, file)?.with_defaults(outbox::DEFAULTS).needing(groups);
        let config = Self::read(&mut settings);
        Ok((config, settings.finish()?))
    }

    fn read(s: &mut Reader) -> Self {
        const A_SECOND: Duration = Duration::from_secs(1);
        const AN_HOUR: Duration = Duration::from_hours(1);
        const A_DAY: Duration = Duration::from_hours(24);
        let database = database::Settings::read(s);
        let auth = auth::Settings::read(s);
        let cell = Cell::read(s);
        let outbox = outbox::Settings::read(s, Service { source: cell.source(), ..SERVICE }, &database);
        let pages = pages::Settings::read(s);
        let config = Self {
            database,
            management: management::Settings::read(s, &auth),
            auth,
            http: shared::web::http::Settings::read(s, pages.peer_origin()),
            pages,
            cell,
            placement: PlacementSettings {
                tasks: s.within("placement.tasks", 1..=64, "from 1 to 64"),
                batch_max_orders: s.within("placement.batch_max_orders", 1..=1000, "from 1 to 1000"),
                batch_max_wait: s.within("placement.batch_max_wait", ..=A_SECOND, "1s or shorter"),
                waiting_line: s.within("placement.waiting_line", 1..=1_000_000, "from 1 to 1000000"),
            },
            changes: ChangesSettings {
                tasks: s.within("changes.tasks", 1..=64, "from 1 to 64"),
                waiting_line: s.within("changes.waiting_line", 1..=1_000_000, "from 1 to 1000000"),
            },
            retention: RetentionSettings {
                idempotency_keys: s.within("retention.idempotency_keys", AN_HOUR.., "1h or longer"),
                orders: s.optional("retention.orders", |_| Ok(())),
                every: outbox.retention.every,
                batch_size: outbox.retention.batch_size,
                pause: outbox.retention.pause,
            },
            outbox,
            task_hung_after: health::task_hung_after(s),
            metrics: exposition::Settings::read(s),
            telemetry: telemetry::Settings::read(s),
            shutdown: lifecycle::Timing::read(s),
        };
        // Whoever repeats a request finds its order. A day: the database lets none leave earlier.
        let shortest = config.retention.idempotency_keys.max(A_DAY);
        if config.retention.orders.is_some_and(|orders| orders < shortest) {
            s.mistake("retention.orders", "must be 1d or longer, and no shorter than retention.idempotency_keys");
        }
        kafka::check(s, publisher::clients(&config.outbox));
        config
    }
}

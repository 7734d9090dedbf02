use std::time::Duration;

use outbox::{message, publisher, transaction};
use shared::{
    operators::management,
    runtime::{config::Reader, database, health, kafka, lifecycle, telemetry},
    web::{auth, http},
};

const PARCELS: message::Service =
    message::Service { name: "parcels", source: "/parcels", format: message::Format::Given };

pub struct Config {
    pub database: database::Settings,
    pub outbox: outbox::Settings,
    pub transactions: transaction::Settings,
    pub auth: auth::Settings,
    pub http: http::Settings,
    pub management: management::Settings,
    pub task_hung_after: Duration,
    pub metrics: management::exposition::Settings,
    pub telemetry: telemetry::Settings,
    pub shutdown: lifecycle::Timing,
}

impl Config {
    /// From the environment, like `PARCELS__KAFKA__BROKERS`.
    pub fn load() -> Result<Self, Vec<String>> {
        let mut reader = Reader::new(include_str!("../default.toml"), "PARCELS", None)?.with_defaults(outbox::DEFAULTS);
        let s = &mut reader;
        let (database, auth) = (database::Settings::read(s), auth::Settings::read(s));
        let config = Self {
            outbox: outbox::Settings::read(s, PARCELS, &database),
            transactions: transaction::Settings::read(s),
            management: management::Settings::read(s, &auth),
            database,
            auth,
            http: http::Settings::read(s, None),
            task_hung_after: health::task_hung_after(s),
            metrics: management::exposition::Settings::read(s),
            telemetry: telemetry::Settings::read(s),
            shutdown: lifecycle::Timing::read(s),
        };
        kafka::check(s, publisher::clients(&config.outbox));
        let shown = reader.finish()?;
        if shown.in_clear.is_empty() { Ok(config) } else { Err(shown.in_clear) }
    }
}

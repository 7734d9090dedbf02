//! What any process needs: settings, tasks, health, metrics, logs, Postgres, Kafka.

pub mod at_once;
pub mod backoff;
pub mod config;
pub mod database;
pub mod failpoint;
pub mod health;
pub mod kafka;
pub mod lifecycle;
pub mod metrics;
pub mod telemetry;
pub mod terminal;
pub mod traces;

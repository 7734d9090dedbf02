//! What any process needs: settings, tasks, health, metrics, logs, Postgres, Kafka.

// Settings are read, all mistakes at once.
pub mod config;
// Tasks, from the first one to the exit code.
pub mod lifecycle;
// How each of them is doing.
pub mod health;
// What they log.
pub mod telemetry;
// The traces they belong to.
pub mod traces;
// What they count.
pub mod metrics;
// What a command prints.
pub mod terminal;
// Postgres: pools, the schema, a password that changes.
pub mod database;
// Kafka: clients, topics, credentials.
pub mod kafka;
// The pauses while something is away.
pub mod backoff;
// How much is done at once while something is slow.
pub mod at_once;
// Where tests break it.
pub mod failpoint;

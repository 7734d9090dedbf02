//! order-service from outside: the real binary on real Postgres and real Kafka.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod auth;
mod bad_input;
mod black_hole;
mod canaries;
mod changes;
mod changes_lost;
mod connections;
mod crash;
mod database_away;
mod document;
mod growth;
mod hung;
mod idempotency;
mod idempotency_lost;
mod instances;
mod instances_killed;
mod instances_sessions;
mod instances_stop;
mod kafka_away;
mod lists;
mod log;
mod logs;
mod lost_answers;
mod matrix;
mod messages;
mod messages_command;
mod metrics;
mod orders;
mod overload;
mod partitions;
mod plans;
mod raw_requests;
mod rejection;
mod reload;
mod retention;
mod schema;
mod settings;
mod slow_callers;
mod stop;
mod switchover;
mod world;

//! activity-service from outside: the real binary on real Postgres and real Kafka.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod auth;
mod bad_requests;
mod black_hole;
mod canaries;
mod crash;
mod database_away;
mod days;
mod document;
mod duplicates;
mod end_to_end;
mod figures;
mod floods;
mod gaps;
mod growth;
mod hung;
mod kafka_away;
mod kept;
mod key_days;
mod keys;
mod lost_topic;
mod matrix;
mod metrics;
mod observed;
mod offsets;
mod offsets_ahead;
mod operator;
mod quarantine;
mod quarantine_command;
mod quarantine_routes;
mod rebalance;
mod registration;
mod retention;
mod retries;
mod schema;
mod settings;
mod shards;
mod stop;
mod world;

//! activity-service from outside: the real binary on real Postgres and real Kafka.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod bad_requests;
mod crash;
mod database_away;
mod days;
mod document;
mod duplicates;
mod end_to_end;
mod figures;
mod kafka_away;
mod kept;
mod offsets;
mod operator;
mod quarantine;
mod rebalance;
mod retries;
mod schema;
mod settings;
mod stop;
mod world;

//! order-service from outside: the real binary on real Postgres and real Kafka.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod bad_input;
mod crash;
mod database_away;
mod kafka_away;
mod lists;
mod lost_answers;
mod orders;
mod rejection;
mod reload;
mod schema;
mod settings;
mod stop;
mod world;

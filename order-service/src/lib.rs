//! Takes orders and announces each of them, once, whatever breaks.
//!
//! An order's way: [`http`] → [`placement`] → [`outbox`] → [`queue`] → [`publisher`] → Kafka.

pub mod announcement;
pub mod app;
pub mod audit;
pub mod change;
pub mod commands;
pub mod config;
pub mod erasure;
pub mod export;
pub mod flight;
pub mod http;
pub mod idempotency;
pub mod instance;
pub mod line;
pub mod log;
pub mod messages;
pub mod metrics;
pub mod order;
pub mod outbox;
pub mod outcome;
pub mod partitions;
pub mod pause;
pub mod placement;
pub mod progress;
pub mod publisher;
pub mod queue;
pub mod reload;
pub mod retention;
pub mod timeline;

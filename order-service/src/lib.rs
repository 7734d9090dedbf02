//! Takes orders and announces each of them, once, whatever breaks.
//!
//! An order's way: [`http`] → [`placement`] → [`outbox`] → Kafka.

pub mod app;
pub mod audit;
pub mod cell;
pub mod change;
pub mod commands;
pub mod config;
pub mod erasure;
pub mod export;
pub mod format;
pub mod http;
pub mod idempotency;
pub mod messages;
pub mod metrics;
pub mod order;
pub mod pause;
pub mod placement;
pub mod retention;
pub mod timeline;

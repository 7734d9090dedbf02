//! Takes orders and announces each of them, once, whatever breaks.
//!
//! An order's way: [`http`] → [`placement`] → [`outbox`] → [`queue`] → [`publisher`] → Kafka.

pub mod app;
pub mod claim;
pub mod commands;
pub mod config;
pub mod flight;
pub mod http;
pub mod instance;
pub mod messages;
pub mod order;
pub mod outbox;
pub mod placement;
pub mod publisher;
pub mod queue;
pub mod retention;
pub mod trace;

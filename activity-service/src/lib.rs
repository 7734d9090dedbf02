//! Counts activities: Kafka -> consumer -> activity -> statistics -> HTTP.

pub mod activity;
pub mod admission;
pub mod app;
pub mod audit;
pub mod calendar;
pub mod commands;
pub mod completeness;
pub mod config;
pub mod consumer;
pub mod gaps;
pub mod http;
pub mod key;
pub mod live;
pub mod lookup;
pub mod metrics;
pub mod pause;
pub mod progress;
pub mod quarantine;
pub mod registration;
pub mod retention;
pub mod statistics;
pub mod trial;
pub mod verify;

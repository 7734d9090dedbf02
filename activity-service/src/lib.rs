//! Counts activities: Kafka -> consumer -> activity -> statistics -> HTTP.

pub mod activity;
pub mod app;
pub mod calendar;
pub mod config;
pub mod consumer;
pub mod http;
pub mod quarantine;
pub mod statistics;

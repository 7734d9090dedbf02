//! What both services use, and nothing that only one of them needs.

pub mod at_once;
pub mod audit;
pub mod auth;
pub mod command;
pub mod config;
pub mod customer;
pub mod database;
pub mod failpoint;
pub mod health;
pub mod http;
pub mod json;
pub mod kafka;
pub mod lifecycle;
pub mod management;
pub mod message;
pub mod metrics;
pub mod pages;
pub mod paging;
pub mod pause;
pub mod problem;
pub mod query;
pub mod telemetry;
pub mod terminal;
pub mod text;
pub mod traces;

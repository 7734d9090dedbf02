//! What a service needs to announce what happens in it, once, whatever breaks: a message is written in the transaction of
//! what it tells of, and sent until Kafka has it.
//!
//! A message's way: [`announcement`] → [`tables`], [`queue`] → [`publisher`] → Kafka. Two doors lead in:
//! [`transaction`], for a service that writes its rows in a transaction, and [`announcement`] with [`outcome`], for one that
//! writes many messages and their rows by one statement. [`start`] is for both.

pub mod announcement;
pub mod flight;
pub mod instance;
pub mod instance_id;
pub mod line;
pub mod log;
pub mod message;
pub mod metrics;
pub mod outcome;
pub mod partitions;
pub mod progress;
pub mod publisher;
pub mod queue;
pub mod rebroadcast;
pub mod reload;
pub mod retention;
pub mod settings;
pub mod slot;
pub mod start;
pub mod tables;
pub mod transaction;

pub use retention::Retention;
pub use settings::{DEFAULTS, Settings};

//! What a service needs to announce what happens in it, once, whatever breaks: a message is written in the transaction of
//! what it tells of, and sent until Kafka has it.
//!
//! A message's way: [`announcement`] → [`tables`], [`queue`] → [`publisher`] → Kafka. Two doors lead in:
//! [`transaction`], for a service that writes its rows in a transaction, and [`announcement`] with [`outcome`], for one that
//! writes many messages and their rows by one statement. [`start`] is for both.

// An identity is taken, and the tasks begin through which a message passes.
pub mod start;
// The door for rows that are written in a transaction.
pub mod transaction;
// From the handlers to the tasks that write for them.
pub mod line;
// Room in memory, held before a message is written.
pub mod slot;
// A message before its row is written.
pub mod announcement;
// Its transaction, repeated until the outcome is known.
pub mod outcome;
// Its row, and the bytes made of it.
pub mod message;
// The rows: the truth about what is to be sent.
pub mod tables;
// The messages of one identity, each at its place.
pub mod log;
// From the transaction to the publisher, in memory.
pub mod queue;
// What found no room there comes from the tables.
pub mod reload;
// What is handed over and not marked.
pub mod flight;
// To Kafka, and its answers back into the tables.
pub mod publisher;
// Up to when everything is announced.
pub mod progress;
// The number of an identity.
pub mod instance_id;
// Who this process is, and what proves that it lives.
pub mod instance;
// A span of time is published once more.
pub mod rebroadcast;
// The days of the tables are made and dropped.
pub mod partitions;
// What nobody needs to know any more goes.
pub mod retention;
// Whether messages can be sent.
pub mod reach;
// What it tells of itself.
pub mod metrics;
// What can be set.
pub mod settings;

pub use retention::Retention;
pub use settings::{DEFAULTS, Settings};

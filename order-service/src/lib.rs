//! Takes orders and announces each of them, once, whatever breaks.
//!
//! An order's way: [`http`] → [`placement`] → [`outbox`] → Kafka.

// The API: what a caller sends is parsed here.
pub mod http;
// What an order is, and how it is read.
pub mod order;
// A caller's Idempotency-Key: one order, one answer.
pub mod idempotency;
// Orders, messages and keys are written by one statement.
pub mod placement;
// An order is completed or cancelled, by one statement too.
pub mod change;
// The bytes of its messages; the outbox sends them.
pub mod format;
// Which of several order-services on one topic this is.
pub mod cell;
// An order's way so far.
pub mod timeline;
// What operators see and do of the outbox.
pub mod messages;
// Announcing rests.
pub mod pause;
// Who changed what.
pub mod audit;
// A customer is forgotten.
pub mod erasure;
// Final orders become files.
pub mod export;
// What is purged.
pub mod retention;
// The same for operators with a shell.
pub mod commands;
// What it tells of itself.
pub mod metrics;
// What can be set.
pub mod config;
// Puts everything together.
pub mod app;

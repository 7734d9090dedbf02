//! Counts activities: Kafka -> consumer -> activity -> statistics -> HTTP.

// Kafka is polled, batches are counted, offsets are committed.
pub mod consumer;
// Where a message stands on a topic.
pub mod place;
// A message as it was sent, and what it is recognised by.
pub mod record;
// Its headers, as they are held and kept.
pub mod headers;
// What of it is read: an activity.
pub mod activity;
// Or why it is none.
pub mod rejection;
// Which day it was.
pub mod calendar;
// Whether it may be counted now.
pub mod admission;
// Where its key lies.
pub mod key;
// It becomes a figure, once.
pub mod statistics;
// Whether the database takes good messages now.
pub mod trial;
// Where it waits if it cannot be counted.
pub mod quarantine;
// A new type, and what waited for it.
pub mod registration;
// What was passed unread.
pub mod gaps;
// What its source tells: up to when everything is announced.
pub mod progress;
// How far the figures are complete.
pub mod completeness;
// Whether they are right.
pub mod verify;
// One look at the figures for all streams.
pub mod live;
// What became of one message.
pub mod lookup;
// The API: figures, types, quarantine.
pub mod http;
// Counting rests.
pub mod pause;
// Who changed what.
pub mod audit;
// Which keys are purged.
pub mod retention;
// The same for operators with a shell.
pub mod commands;
// What a scrape asks the database.
pub mod gauges;
// What it tells of itself.
pub mod metrics;
// What can be set.
pub mod config;
// Puts everything together.
pub mod app;

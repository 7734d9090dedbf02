//! What the tests of both services stand on: a database and a topic per test on the servers of
//! `dev/with-stack`, servers of a test's own that it may stop, the real binaries, a proxy that
//! breaks connections, and a checker that judges from outside.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod bad_tokens;
mod browser;
mod canary;
mod checker;
mod collector;
mod database;
pub mod document;
pub mod documented;
mod events;
mod failpoints;
pub mod front;
mod group;
mod history;
mod issuer;
mod kafka;
mod messages;
mod outbox;
pub mod plaintext;
pub mod plans;
mod pooler;
mod postgres;
mod privileges;
mod prometheus;
mod proxy;
mod raw;
mod recount;
mod requests;
mod schema;
mod scrape;
pub mod secrets;
mod server;
pub mod server_settings;
mod service;
mod sign_in;
mod signer;
pub mod terminal;
mod topic;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

pub use bad_tokens::bad_authorizations;
pub use browser::Browser;
pub use canary::{CANARY, Errand, headers_of_all_kinds, told};
pub use checker::{Checker, OutboxRow};
pub use collector::{Collector, Span};
pub use database::Database;
pub use events::{Event, Events};
pub use failpoints::{FailPoint, fail_points};
pub use history::{Answer, Client, History, order_body};
pub use issuer::Issuer;
pub use kafka::Kafka;
pub use messages::announcement;
pub use outbox::UNPUBLISHED;
pub use pooler::{PgBouncer, Pooler};
pub use postgres::{Postgres, Standby};
pub use privileges::{only_the_owner_changes_the_schema, permitted_changes};
pub use prometheus::{Prometheus, Series, observability, rules_hold};
pub use proxy::Proxy;
pub use raw::{Raw, RawAnswer, allow_files};
pub use recount::Recount;
pub use requests::Right;
pub use schema::{begins_nothing_anew_by_itself, describe, leaves_tables_of_others_alone, up_down_up};
pub use scrape::{Scrape, documented_of_database};
pub use service::{Service, Setup, Signal, binary, binary_before};
pub use sign_in::{CLIENT_ID, SignIn};
pub use signer::{AUDIENCE, ISSUER, Signer};
pub use topic::{Received, Topic};

/// The pauses between two questions.
const POLLS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

/// Polls `condition` until it holds: the longer it takes the more rarely, for a question costs those who are waited for.
///
/// # Panics
/// It does not within `limit`.
pub async fn wait_until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        let waited = begun.elapsed();
        assert!(waited < limit, "not within {limit:?}: {what}");
        tokio::time::sleep((waited / 20).clamp(POLLS.0, POLLS.1)).await;
    }
}

/// The address of a server that `dev/with-stack` started.
fn stack(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: the tests need the stack, run make test"))
}

fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("the crate is a member of the workspace").to_owned()
}

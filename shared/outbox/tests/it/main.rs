//! What a service relies on that uses the outbox, on a real Postgres. That messages are sent is shown by the services.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test")]

mod pools;
mod rejections;
mod schema;
mod transactions;

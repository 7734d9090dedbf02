//! Logs: one JSON object a line on standard output.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::http::panics;

/// Starts logging at `level`, or at what `RUST_LOG` says. A terminal gets lines for people.
pub fn start(level: &str) {
    // The server's own lines about its workers repeat what is logged when it listens. Those about
    // connections quote what callers send, and any caller could fill the log with them.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},actix_server=warn,actix_http=off")));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    if std::io::stdout().is_terminal() {
        logs.init();
    } else {
        logs.json().flatten_event(true).init();
    }
    panics::log();
}

/// The setting `log.level`: a level, or directives as in `RUST_LOG`.
///
/// # Errors
/// What it must be instead.
pub fn check_level(level: &String) -> Result<(), String> {
    let parsed = EnvFilter::builder().parse(level);
    parsed.map(|_| ()).map_err(|_| "must be error, warn, info, debug or trace, or directives like RUST_LOG's".into())
}

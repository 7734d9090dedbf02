//! Panics, as lines of the log.

use std::panic::PanicHookInfo;

use crate::runtime::metrics::own::PANICS;

/// Logs every panic of the process as one line, instead of some on standard error.
///
/// The text of a panic may quote what it stumbled over, so only the place is told at level error.
pub(super) fn log() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        PANICS.add(1);
        let place = panic.location().map(ToString::to_string);
        tracing::error!("code.location" = place, "panicked");
        tracing::debug!(error = panic.payload_as_str(), "what the panic says");
    }));
}

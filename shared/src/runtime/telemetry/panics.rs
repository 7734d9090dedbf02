//! Panics, as lines of the log.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
};

use crate::runtime::metrics::own::PANICS;

thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or nothing where it panics: for a library that panics on what others have written. No line is logged.
/// What it works on must be fit for use afterwards: best it only reads.
pub fn none_if_it_panics<T>(work: impl FnOnce() -> T) -> Option<T> {
    let before = IS_EXPECTED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work)).ok();
    IS_EXPECTED.set(before);
    done
}

/// Logs every panic of the process as one line, instead of some on standard error.
///
/// The text of a panic may quote what it stumbled over, so only the place is told at level error.
pub(super) fn log() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        if IS_EXPECTED.get() {
            return;
        }
        PANICS.add(1);
        let place = panic.location().map(ToString::to_string);
        tracing::error!("code.location" = place, "panicked");
        tracing::debug!(error = panic.payload_as_str(), "what the panic says");
    }));
}

//! How much is logged.

use tracing::{
    Metadata, Subscriber,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::Context, reload};

/// The target of lines that no level removes.
pub(crate) const ALWAYS: &str = "always";
/// Directives in one level.
const MOST: usize = 32;
pub(crate) const RULE: &str = "must be error, warn, info, debug or trace, or up to 32 of TARGET=LEVEL with commas, \
     like info,order_service=debug; not of actix_http or actix_server; of at most 1000 characters";
/// In bytes. The audit keeps it, under an index whose entries have to fit into a third of a page.
const LONGEST: usize = 1000;
const SERVER: &str = "actix_server";
const CONNECTIONS: &str = "actix_http";

#[derive(Clone, Debug)]
pub struct Level(reload::Handle<WithForced, Registry>);

/// What is wanted of the lines that it may decide about.
#[derive(Debug)]
pub(super) struct WithForced(EnvFilter);

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LevelError {
    #[error("it {RULE}")]
    Wrong,
    #[error("the filter of the log is gone")]
    Gone(#[from] reload::Error),
}

impl Level {
    /// And whether `RUST_LOG` says something that cannot be read.
    pub(super) fn new(level: &str) -> (Self, reload::Layer<WithForced, Registry>, bool) {
        // It is the operator's own: any of its forms, as long as it says something.
        let variable = std::env::var_os(EnvFilter::DEFAULT_ENV).filter(|wanted| !wanted.is_empty());
        let wanted = variable.as_ref().and_then(|wanted| parsed(wanted.to_str()?));
        let is_unreadable = variable.is_some() && wanted.is_none();
        let filter = wanted.or_else(|| parsed(level)).expect("the setting was checked");
        let (filter, handle) = reload::Layer::new(filter);
        (Self(handle), filter, is_unreadable)
    }

    /// Changes it while the process runs.
    pub(crate) fn change(&self, wanted: &str, peer: Option<&str>) -> Result<(), LevelError> {
        check_level(wanted).map_err(|_| LevelError::Wrong)?;
        let filter = parsed(wanted).ok_or(LevelError::Wrong)?;
        let before = self.0.with_current(|WithForced(filter)| filter.to_string())?;
        // Before and after: whoever looks for lines that are missing finds when they ended.
        tracing::warn!(target: ALWAYS, wanted, before, peer, "changing the log level");
        self.0.reload(filter)?;
        tracing::warn!(target: ALWAYS, wanted, "the log level was changed");
        Ok(())
    }
}

/// Whether a line is written whatever the level is; none where the level decides.
fn forced(metadata: &Metadata<'_>) -> Option<bool> {
    match metadata.target().split("::").next()? {
        ALWAYS => Some(true),
        // Its own lines about its workers repeat what is logged when it listens.
        SERVER => Some(*metadata.level() <= tracing::Level::WARN),
        // They quote what callers send, and any caller could fill the log with them.
        CONNECTIONS => Some(false),
        _ => None,
    }
}

/// It gives no `max_level_hint`: the facade of the crate log would ask for it once, when the process starts.
impl<S: Subscriber> Layer<S> for WithForced {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match forced(metadata) {
            Some(true) => Interest::always(),
            Some(false) => Interest::never(),
            None => Layer::<S>::register_callsite(&self.0, metadata),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        forced(metadata).unwrap_or_else(|| self.0.enabled(metadata, context))
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }
}

/// No regular expressions: they are compiled, and a short one can take minutes.
fn parsed(level: &str) -> Option<WithForced> {
    let wanted = level.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    EnvFilter::builder().with_regex(false).parse(wanted).ok().map(WithForced)
}

/// The setting `log.level`, and what `PUT /log-level` takes: a level, or a list of levels and `TARGET=LEVEL`.
///
/// # Errors
/// What it must be instead.
pub fn check_level(level: &str) -> Result<(), String> {
    let is_level =
        |text: &str| ["error", "warn", "info", "debug", "trace"].iter().any(|one| one.eq_ignore_ascii_case(text));
    let is_target = |text: &str| {
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let is_forced = [ALWAYS, SERVER, CONNECTIONS].contains(&text.split("::").next().unwrap_or_default());
        text.split("::").all(is_name) && !is_forced
    };
    let is_directive = |text: &str| match text.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(text),
    };
    if level.len() <= LONGEST && level.split(',').map(str::trim).all(is_directive) && level.split(',').count() <= MOST {
        Ok(())
    } else {
        Err(RULE.into())
    }
}

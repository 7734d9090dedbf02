//! How much is logged.

use tracing_subscriber::{EnvFilter, Registry, reload};

/// The target of lines that no level removes.
pub(crate) const ALWAYS: &str = "always";
/// Directives in one level.
const MOST: usize = 32;
pub(crate) const RULE: &str = "must be error, warn, info, debug or trace, or up to 32 of TARGET=LEVEL with commas, \
     like info,order_service=debug; not of actix_http or actix_server";
/// The server's own lines about its workers repeat what is logged when it listens. Those about
/// connections quote what callers send, and any caller could fill the log with them.
const FORCED: [(&str, &str); 3] = [("actix_server", "warn"), ("actix_http", "off"), (ALWAYS, "trace")];

#[derive(Clone, Debug)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LevelError {
    #[error("it {RULE}")]
    Wrong,
    #[error("the filter of the log is gone")]
    Gone(#[from] reload::Error),
}

impl Level {
    pub(super) fn new(level: &str) -> (Self, reload::Layer<EnvFilter, Registry>) {
        // It is the operator's own: any of its forms, as long as it says something.
        let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty());
        let filter = wanted.and_then(|wanted| parsed(&wanted)).or_else(|| parsed(level));
        let (filter, handle) = reload::Layer::new(filter.expect("the setting was checked"));
        (Self(handle), filter)
    }

    /// Changes it while the process runs.
    pub(crate) fn change(&self, wanted: &str, peer: Option<&str>) -> Result<(), LevelError> {
        check_level(wanted).map_err(|_| LevelError::Wrong)?;
        let filter = parsed(wanted).ok_or(LevelError::Wrong)?;
        let before = self.0.with_current(ToString::to_string)?;
        // Before and after: whoever looks for lines that are missing finds when they ended.
        tracing::warn!(target: ALWAYS, wanted, before, peer, "changing the log level");
        self.0.reload(filter)?;
        tracing::warn!(target: ALWAYS, wanted, "the log level was changed");
        Ok(())
    }
}

/// What is wanted, and what is forced. No regular expressions: they are compiled, and a short one can take minutes.
fn parsed(level: &str) -> Option<EnvFilter> {
    let forced: String = FORCED.iter().map(|(target, level)| format!(",{target}={level}")).collect();
    let wanted = level.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    EnvFilter::builder().with_regex(false).parse(wanted + &forced).ok()
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
        text.split("::").all(is_name) && FORCED.iter().all(|(forced, _)| text.split("::").next() != Some(forced))
    };
    let is_directive = |text: &str| match text.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(text),
    };
    if level.split(',').map(str::trim).all(is_directive) && level.split(',').count() <= MOST {
        Ok(())
    } else {
        Err(RULE.into())
    }
}

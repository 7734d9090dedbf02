//! What leaves the process about itself beside metrics: logs, one JSON object a line, on standard
//! output and in files where the operator wants them; and traces, see [`crate::runtime::traces`].
//!
//! Whoever logs never waits: lines go through a bounded buffer, and what does not fit is counted.

mod files;
mod level;
mod output;
mod panics;
mod repeated;

use std::{
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use files::Files;
pub(crate) use files::open_anew;
pub(crate) use level::{ALWAYS, LevelError, RULE};
pub use level::{Level, check_level};
use output::Output;
pub(crate) use panics::none_if_it_panics;
pub(crate) use repeated::LIBRDKAFKA;
use repeated::Repeated;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::runtime::{config::Reader, metrics::own::LINES_DROPPED, traces};

/// Lines on their way out: some 3 MB.
const BUFFERED_LINES: usize = 8192;

#[derive(Clone, Debug)]
pub struct Settings {
    level: String,
    file: Option<Files>,
    traces: traces::Settings,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        Self {
            level: settings.checked("log.level", |level: &String| check_level(level)),
            file: Files::read(settings),
            traces: traces::Settings::read(settings),
        }
    }
}

/// Held to the very end of the process: what is dropped writes the last lines and sends the last spans.
#[derive(Debug)]
pub struct Telemetry {
    pub level: Level,
    lines: Vec<ErrorCounter>,
    lost: Arc<AtomicU64>,
    _traces: Option<traces::Export>,
    _writers: Vec<WorkerGuard>,
}

impl Telemetry {
    /// Starts logs and traces at the settings, or logs at what `RUST_LOG` says. A terminal gets lines
    /// for people.
    ///
    /// # Errors
    /// The files cannot be written, or the address of the collector is none.
    pub fn start(settings: &Settings, service: &'static str) -> anyhow::Result<Self> {
        let (level, filter, is_unreadable) = Level::new(&settings.level);
        let (mut lines, mut writers, lost) = (Vec::new(), Vec::new(), Arc::default());
        let mut unblocked = |(writer, guard): (NonBlocking, WorkerGuard)| {
            lines.push(writer.error_counter());
            writers.push(guard);
            writer
        };
        let out = unblocked(buffer().finish(Output::new("standard output", std::io::stdout(), &lost)));
        let out = if std::io::stdout().is_terminal() {
            fmt::layer().with_writer(out).boxed()
        } else {
            fmt::layer().json().flatten_event(true).with_writer(out).boxed()
        };
        let files = settings.file.as_ref().map(|files| files.open(service)).transpose();
        let files = files.context("log.file.directory: the files cannot be written")?;
        let files = files.map(|files| unblocked(buffer().finish(Output::new("log.file.directory", files, &lost))));
        let files = files.map(|files| fmt::layer().json().flatten_event(true).with_writer(files));
        tracing_subscriber::registry().with(filter).with(Repeated::default()).with(out).with(files).init();
        panics::log();
        if is_unreadable {
            tracing::warn!(target: ALWAYS, "RUST_LOG cannot be read: log.level is in force");
        }
        let traces = settings.traces.start(service)?;
        Ok(Self { level, lines, lost, _traces: traces, _writers: writers })
    }

    /// Sets the metrics, each time that it is called.
    pub fn gauges(&self) -> impl Fn() + Send + Sync + use<> {
        let (lines, lost) = (self.lines.clone(), Arc::clone(&self.lost));
        move || {
            let dropped: u64 = lines.iter().map(|lines| lines.dropped_lines() as u64).sum();
            LINES_DROPPED.set_to(dropped + lost.load(Ordering::Relaxed));
        }
    }
}

fn buffer() -> NonBlockingBuilder {
    NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES).lossy(true).thread_name("logs")
}

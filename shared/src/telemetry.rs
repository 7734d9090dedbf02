//! What leaves the process about itself beside metrics: logs, one JSON object a line, on standard
//! output and in files where the operator wants them; and traces, see [`crate::traces`].
//!
//! Whoever logs never waits: lines go through a bounded buffer, and what does not fit is counted.

mod level;
mod panics;
mod repeated;

use std::io::IsTerminal;

use anyhow::Context;
pub(crate) use level::{ALWAYS, LevelError, RULE};
pub use level::{Level, check_level};
pub(crate) use repeated::LIBRDKAFKA;
use repeated::Repeated;
use tracing_appender::{
    non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard},
    rolling::{RollingFileAppender, Rotation},
};
use tracing_subscriber::{Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{config::Reader, metrics::own::LINES_DROPPED, traces};

/// Lines on their way out: some 3 MB.
const BUFFERED_LINES: usize = 8192;

#[derive(Clone, Debug)]
pub struct Settings {
    level: String,
    file: Option<Files>,
    traces: traces::Settings,
}

/// Rolling files.
#[derive(Clone, Debug)]
struct Files {
    directory: String,
    rotation: String,
    kept: u32,
}

impl Settings {
    pub fn read(settings: &mut Reader) -> Self {
        let directory = settings.optional("log.file.directory", |_| Ok(()));
        let rotation = settings.checked("log.file.rotation", |rotation: &String| match rotation.as_str() {
            "daily" | "hourly" => Ok(()),
            _ => Err("must be daily or hourly".into()),
        });
        let kept = settings.within("log.file.kept", 1..=10_000, "from 1 to 10000");
        Self {
            level: settings.checked("log.level", |level: &String| check_level(level)),
            file: directory.map(|directory| Files { directory, rotation, kept }),
            traces: traces::Settings::read(settings),
        }
    }
}

/// Held to the very end of the process: what is dropped writes the last lines and sends the last spans.
#[derive(Debug)]
pub struct Telemetry {
    pub level: Level,
    lines: Vec<ErrorCounter>,
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
        let (level, filter) = Level::new(&settings.level);
        let (mut lines, mut writers) = (Vec::new(), Vec::new());
        let mut unblocked = |(writer, guard): (NonBlocking, WorkerGuard)| {
            lines.push(writer.error_counter());
            writers.push(guard);
            writer
        };
        let out = unblocked(buffer().finish(std::io::stdout()));
        let out = if std::io::stdout().is_terminal() {
            fmt::layer().with_writer(out).boxed()
        } else {
            fmt::layer().json().flatten_event(true).with_writer(out).boxed()
        };
        let files = settings.file.as_ref().map(|files| files.open(service)).transpose()?;
        let files = files.map(|files| unblocked(buffer().finish(files)));
        let files = files.map(|files| fmt::layer().json().flatten_event(true).with_writer(files));
        tracing_subscriber::registry().with(filter).with(Repeated::default()).with(out).with(files).init();
        panics::log();
        let traces = settings.traces.start(service)?;
        Ok(Self { level, lines, _traces: traces, _writers: writers })
    }

    /// Sets the metrics, each time that it is called.
    pub fn gauges(&self) -> impl Fn() + Send + Sync + use<> {
        let lines = self.lines.clone();
        move || LINES_DROPPED.set_to(lines.iter().map(|lines| lines.dropped_lines() as u64).sum())
    }
}

impl Files {
    /// `<service>.<date>.log`; the oldest beyond `log.file.kept` are removed.
    fn open(&self, service: &str) -> anyhow::Result<RollingFileAppender> {
        let rotation = if self.rotation == "hourly" { Rotation::HOURLY } else { Rotation::DAILY };
        RollingFileAppender::builder()
            .rotation(rotation)
            .filename_prefix(service)
            .filename_suffix("log")
            .max_log_files(self.kept as usize)
            .build(&self.directory)
            .context("log.file.directory: the files cannot be written")
    }
}

fn buffer() -> NonBlockingBuilder {
    NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES).lossy(true).thread_name("logs")
}

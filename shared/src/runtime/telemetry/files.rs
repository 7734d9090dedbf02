//! Rolling files.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use tracing_appender::rolling::{InitError, RollingFileAppender, Rotation};

use crate::runtime::config::Reader;

/// How often somebody has asked for the files to be opened anew.
static ASKED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: String,
    rotation: String,
    kept: u32,
}

/// The file of now.
#[derive(Debug)]
pub(super) struct Open {
    files: Files,
    service: &'static str,
    file: RollingFileAppender,
    /// `ASKED` when it was opened.
    asked: u64,
}

/// From the next line on: whoever has moved a file away wants the next lines in another one under its name.
pub(crate) fn open_anew() {
    ASKED.fetch_add(1, Ordering::Relaxed);
}

impl Files {
    pub(super) fn read(settings: &mut Reader) -> Option<Self> {
        let directory = settings.optional("log.file.directory", |_| Ok(()));
        let rotation = settings.checked("log.file.rotation", |rotation: &String| match rotation.as_str() {
            "daily" | "hourly" => Ok(()),
            _ => Err("must be daily or hourly".into()),
        });
        let kept = settings.within("log.file.kept", 1..=10_000, "from 1 to 10000");
        directory.map(|directory| Self { directory, rotation, kept })
    }

    pub(super) fn open(&self, service: &'static str) -> Result<Open, InitError> {
        let asked = ASKED.load(Ordering::Relaxed);
        Ok(Open { files: self.clone(), service, file: self.begin(service)?, asked })
    }

    /// `<service>.<date>.log`; the oldest beyond `log.file.kept` are removed.
    fn begin(&self, service: &str) -> Result<RollingFileAppender, InitError> {
        let rotation = if self.rotation == "hourly" { Rotation::HOURLY } else { Rotation::DAILY };
        RollingFileAppender::builder()
            .rotation(rotation)
            .filename_prefix(service)
            .filename_suffix("log")
            .max_log_files(self.kept as usize)
            .build(&self.directory)
    }
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let asked = ASKED.load(Ordering::Relaxed);
        if asked != self.asked {
            self.file = self.files.begin(self.service).map_err(io::Error::other)?;
            self.asked = asked;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

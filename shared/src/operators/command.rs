//! What commands of both services are given: who asks, and how a pause is wanted. And how long ones tell that they get on.

use std::{
    fmt::Display,
    io::Write,
    time::{Duration, Instant},
};

use clap::Args;
use time::format_description::well_known::Rfc3339;

use crate::{
    contract::text::parse_reason,
    operators::{
        audit::{Author, parse_actor},
        pause::{self, Wanted},
    },
    runtime::terminal,
};

/// How often a long command tells how far it has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Tells on standard error how far a command has come that goes page by page.
#[derive(Debug)]
pub struct Progress {
    told: Instant,
}

impl Progress {
    #[must_use]
    pub fn begin() -> Self {
        Self { told: Instant::now() }
    }

    /// Now and then: `done` is what was done so far.
    pub fn tell(&mut self, done: impl Display) {
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            terminal::complain(done);
        }
    }
}

#[derive(Args, Debug)]
pub struct Who {
    /// Who does it, kept with what is done; the user of the operating system unless given.
    #[arg(long, value_parser = actor)]
    actor: Option<String>,
}

impl Who {
    #[must_use]
    pub fn author(&self) -> Author {
        Author::of_command(self.actor.as_deref())
    }
}

#[derive(Args, Debug)]
pub struct PauseArguments {
    /// Why; kept with the pause and in the audit.
    #[arg(long, value_parser = parse_reason)]
    reason: String,
    /// How long at most, like 30m; without it somebody has to resume.
    #[arg(long = "for", value_name = "TIME", value_parser = pause::parse_time)]
    lasts: Option<Duration>,
    #[command(flatten)]
    pub who: Who,
}

impl PauseArguments {
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { reason: self.reason.clone(), lasts: self.lasts }
    }
}

/// Prints a line about a pause that has begun; `what` is what rests.
///
/// # Errors
/// Standard output's.
pub fn print_paused(what: &str, pause: &pause::Pause) -> anyhow::Result<()> {
    let until = pause.until.map_or(Ok("somebody resumes".into()), |until| until.format(&Rfc3339))?;
    Ok(writeln!(std::io::stdout().lock(), "{what} is paused until {until}")?)
}

/// Prints a line about a pause that was to be ended; `was` says whether there was one.
///
/// # Errors
/// Standard output's.
pub fn print_resumed(what: &str, was: bool) -> anyhow::Result<()> {
    let done = if was { "is resumed" } else { "was not paused" };
    Ok(writeln!(std::io::stdout().lock(), "{what} {done}")?)
}

fn actor(text: &str) -> Result<String, String> {
    parse_actor(text).ok_or_else(|| "must be 1 to 255 visible characters".into())
}

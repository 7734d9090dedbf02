//! The admin routes' work on the database itself, for operators with a shell.

mod quarantine;

use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
pub use quarantine::Quarantine;
use shared::{
    contract::text::parse_reason,
    operators::{
        command::{self, PauseArguments, Who},
        table::table,
    },
    runtime::{database::Pool, lifecycle::Exit, terminal},
};
use time::{Date, format_description::well_known::Rfc3339};

use crate::{
    calendar,
    gaps::{self, Gap},
    pause, verify,
};

#[derive(Debug, Subcommand)]
pub enum Gaps {
    /// Lists gaps, oldest first.
    List {
        #[arg(long, value_enum, default_value_t)]
        state: gaps::GapState,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
        limit: i64,
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Closes an open gap: its messages were sent again, or are known to be missing.
    Close {
        id: i64,
        /// Why; kept with the gap.
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, Subcommand)]
pub enum FiguresCommand {
    /// Holds the figures against the keys, and against what the sources say they wrote. Ends with 1 where they differ; a
    /// day of which the sources have not told all is called unknown.
    Verify {
        /// The first day, like 2026-11-22; the first there is unless given.
        #[arg(long, value_parser = verify::parse_day)]
        from: Option<Date>,
        /// The last day; the last there is unless given.
        #[arg(long, value_parser = verify::parse_day)]
        to: Option<Date>,
    },
}

impl FiguresCommand {
    /// # Errors
    /// The database's, or a figure is not what it should be.
    pub async fn run(self, pool: &Pool, topics: &[String], time_zone: &str) -> anyhow::Result<Exit> {
        let Self::Verify { from, to } = self;
        // Nothing is between them, and nothing of it wrong.
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            terminal::complain("--from: must not be after --to");
            return Ok(Exit::WrongSettings);
        }
        let is_right = verify::verify(pool, (from, to), (topics, time_zone)).await?;
        anyhow::ensure!(is_right, "figures differ: the lines that end with neither ok nor unknown say how");
        Ok(Exit::Stopped)
    }
}

#[derive(Debug, Subcommand)]
pub enum Calendar {
    /// Keeps the zone under another of its names, and accepts the rules that the database has for it now.
    Rename {
        /// An IANA name of the same zone, like `Europe/Kyiv` where `Europe/Kiev` is kept.
        #[arg(value_parser = zone)]
        zone: String,
        /// JSON instead of a sentence.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
}

/// Let counting rest on all instances; messages stay on the topic
#[derive(Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    how: PauseArguments,
}

/// End the pause of counting
#[derive(Args, Debug)]
pub struct Resume {
    #[command(flatten)]
    who: Who,
}

impl Pause {
    /// # Errors
    /// The database's.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        let begun = pause::begin(pool, &self.how.wanted(), &self.how.who.author()).await?;
        command::print_paused("counting", &begun)
    }
}

impl Resume {
    /// # Errors
    /// The database's.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        let was = pause::end(pool, &self.who.author()).await?;
        command::print_resumed("counting", was)
    }
}

impl Gaps {
    /// # Errors
    /// The database's, or there is no such gap, or it is not open.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        match self {
            Self::List { state, limit, json } => {
                let found = gaps::list(pool, state, limit).await?;
                show(json, &found, || listed(&found, "gaps", gap_table))
            }
            Self::Close { id, reason, json, who } => {
                let closed = gaps::close(pool, id, &who.author(), &reason).await?;
                let gap = gaps::find(pool, id).await?.context("there is no gap of this id")?;
                anyhow::ensure!(closed, "the gap is not open; it is {}", gap.state);
                show(json, &gap, || gap_table(std::slice::from_ref(&gap)))
            }
        }
    }
}

impl Calendar {
    /// # Errors
    /// The database's, or the name is not one of the same zone.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        let Self::Rename { zone, json, who } = self;
        let renamed = calendar::rename(pool, &zone, &who.author()).await?;
        show(json, &renamed, || {
            format!("{} is kept as {} now; set statistics.time_zone to it", renamed.from, renamed.to)
        })
    }
}

fn show(json: bool, found: &impl serde::Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(found)? } else { text() };
    writeln!(std::io::stdout().lock(), "{text}").context("standard output")
}

fn listed<T>(found: &[T], what: &str, table: impl FnOnce(&[T]) -> String) -> String {
    if found.is_empty() { format!("There are no such {what}.") } else { table(found) }
}

fn zone(text: &str) -> Result<String, String> {
    let name = text.to_owned();
    calendar::check_name(&name).map(|()| name)
}

fn gap_table(gaps: &[Gap]) -> String {
    let rows = gaps.iter().map(|one| {
        [
            one.id.to_string(),
            format!("{}:{}", one.topic, one.partition),
            one.from.to_string(),
            one.to.to_string(),
            one.state.clone(),
            one.found_at.format(&Rfc3339).unwrap_or_default(),
            one.closed_at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
            one.closed_by.clone().unwrap_or_default(),
            one.reason.clone().unwrap_or_default(),
        ]
    });
    table(["id", "partition", "from", "to", "state", "found", "closed", "by", "why"], rows)
}

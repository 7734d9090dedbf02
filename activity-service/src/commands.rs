//! The admin routes' work on the database itself, for operators with a shell.

use shared::database::Pool;
use std::{io::Write, os::unix::fs::MetadataExt};

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::{
    gaps::{self, Gap},
    http::quarantine::Whole,
    quarantine::{self, Discard, Entry, Page, Reason, Replay, Replayed, Scope, State, listing::parse_why, replay::How},
};

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// Lists messages, oldest first.
    List {
        #[arg(long, value_enum, default_value_t)]
        state: State,
        /// Only those with this reason, like "unknown type".
        #[arg(long, value_parser = reason)]
        reason: Option<Reason>,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
        limit: i64,
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Shows one message with its value.
    Show {
        id: Uuid,
        /// JSON, the value in Base64, instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Tries messages again: one, or all that wait.
    Replay {
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<Uuid>,
        #[arg(long)]
        all: bool,
        /// Counts even what is too old to know whether it was counted before.
        #[arg(long)]
        force: bool,
        /// Says what would become of them and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// JSON instead of a sentence.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Ends the waiting of one message without counting it.
    Discard {
        id: Uuid,
        /// Why; kept with the message.
        #[arg(long, value_parser = why)]
        reason: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Debug, Subcommand)]
pub enum Gaps {
    /// Lists gaps, oldest first.
    List {
        #[arg(long, value_enum, default_value_t)]
        state: gaps::State,
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
        #[arg(long, value_parser = why)]
        reason: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Args, Debug)]
pub struct Who {
    /// Who does it, kept with the message; the user of the operating system unless given.
    #[arg(long, value_parser = why)]
    actor: Option<String>,
}

impl Quarantine {
    /// # Errors
    /// The database's, or there is no such message, or it does not wait.
    pub async fn run(self, pool: &Pool, time_zone: &str) -> anyhow::Result<()> {
        match self {
            Self::List { state, reason, limit, json } => {
                let (found, _) = quarantine::list(pool, &Page { state, reason, limit, after: None }).await?;
                show(json, &found, || table(&found).to_string())
            }
            Self::Show { id, json } => {
                let found = quarantine::find(pool, id).await?.context("there is no message of this id")?;
                let text =
                    found.1.as_deref().map_or_else(|| "no value".into(), |value| value.escape_ascii().to_string());
                let whole = Whole::new(found);
                show(json, &whole, || format!("{}\n{text}", table(std::slice::from_ref(&whole.entry))))
            }
            Self::Replay { id, force, dry_run, json, who, .. } => {
                if let Some(id) = id {
                    waiting(pool, id).await?;
                }
                let (actor, scope) = (who.name(), id.map_or(Scope::All, Scope::One));
                let how = How { time_zone, force, actor: &actor, why: Reason::of_replay(force), dry_run };
                let mut replay = Replay::new(pool, scope, how);
                let mut sum = Replayed::default();
                while let Some(done) = replay.step().await? {
                    sum.add(done);
                }
                let Replayed { counted, duplicates, still_waiting } = sum;
                let would = if dry_run { "would be " } else { "" };
                show(json, &sum, || {
                    format!("{would}counted {counted}, duplicates {duplicates}, still waiting {still_waiting}")
                })
            }
            Self::Discard { id, reason, json, who } => {
                match quarantine::discard(pool, id, &who.name(), &reason).await? {
                    Discard::Done => {}
                    Discard::NotWaiting | Discard::Unknown => waiting(pool, id).await?,
                }
                let (entry, _) = quarantine::find(pool, id).await?.context("the message is gone")?;
                show(json, &entry, || table(std::slice::from_ref(&entry)).to_string())
            }
        }
    }
}

impl Gaps {
    /// # Errors
    /// The database's, or there is no such gap, or it is not open.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        match self {
            Self::List { state, limit, json } => {
                let found = gaps::list(pool, state, limit).await?;
                show(json, &found, || gap_table(&found).to_string())
            }
            Self::Close { id, reason, json, who } => {
                let closed = gaps::close(pool, id, &who.name(), &reason).await?;
                let gap = gaps::find(pool, id).await?.context("there is no gap of this id")?;
                anyhow::ensure!(closed, "the gap is not open; it is {}", gap.state);
                show(json, &gap, || gap_table(std::slice::from_ref(&gap)).to_string())
            }
        }
    }
}

impl Who {
    fn name(self) -> String {
        let named = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
        let named = self.actor.into_iter().chain(named).find(|name| !name.trim().is_empty());
        // In a container there is often a number only.
        let number = || std::fs::metadata("/proc/self").map_or("unknown".into(), |own| format!("uid {}", own.uid()));
        named.unwrap_or_else(number)
    }
}

async fn waiting(pool: &Pool, id: Uuid) -> anyhow::Result<()> {
    let (entry, _) = quarantine::find(pool, id).await?.context("there is no message of this id")?;
    anyhow::ensure!(
        entry.state == State::Waiting.as_str(),
        "the message does not wait any more; it is {}",
        entry.state
    );
    Ok(())
}

fn show(json: bool, found: &impl serde::Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(found)? } else { text() };
    writeln!(std::io::stdout().lock(), "{text}").context("standard output")
}

fn reason(text: &str) -> Result<Reason, String> {
    let all: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    Reason::parse(text).ok_or_else(|| format!("must be one of: {}", all.join(", ")))
}

fn why(text: &str) -> Result<String, String> {
    parse_why(text).map(str::to_owned).ok_or_else(|| "must be 1 to 500 visible characters".into())
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["id", "place", "reason", "detail", "state", "messages", "received", "resolved", "by", "why"]);
    for one in entries {
        table.add_row([
            one.id.to_string(),
            format!("{}:{}:{}", one.topic, one.partition, one.offset),
            one.reason.clone(),
            one.detail.clone(),
            one.state.clone(),
            one.messages.to_string(),
            one.received_at.format(&Rfc3339).unwrap_or_default(),
            one.resolved_at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
            one.resolved_by.clone().unwrap_or_default(),
            one.resolution.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn gap_table(gaps: &[Gap]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["id", "partition", "from", "to", "state", "found", "closed", "by", "why"]);
    for one in gaps {
        table.add_row([
            one.id.to_string(),
            format!("{}:{}", one.topic, one.partition),
            one.from.to_string(),
            one.to.to_string(),
            one.state.clone(),
            one.found_at.format(&Rfc3339).unwrap_or_default(),
            one.closed_at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
            one.closed_by.clone().unwrap_or_default(),
            one.reason.clone().unwrap_or_default(),
        ]);
    }
    table
}

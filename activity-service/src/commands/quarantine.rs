//! `activity-service quarantine`.

use std::{io::Read, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use shared::{
    contract::{
        message::{ActivityTypeCode, timestamp},
        text::parse_reason,
    },
    operators::{command::Progress, table},
    runtime::database::Pool,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{Who, listed, show};
use crate::{
    headers::Header,
    http::quarantine::Whole,
    quarantine::{
        self, Discard, Discarded, Discarding, Entry, Filter, Page, Pass, QuarantineState, Reason, Replay, Replayed,
        correction::{Corrected, Correction},
        filter::After,
        replay::{FigureChange, How},
    },
};

/// No message that a topic takes by default is larger.
const LARGEST_FILE: u64 = 1024 * 1024;

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// Lists messages, oldest first.
    List {
        #[arg(long, value_enum, default_value_t)]
        state: QuarantineState,
        #[command(flatten)]
        filter: FilterArguments,
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
    /// Tries messages again: one, those of a filter, or all that wait.
    Replay {
        #[command(flatten)]
        which: Which,
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
    /// Ends the waiting of messages without counting them: of one, of those of a filter, or of all.
    Discard {
        #[command(flatten)]
        which: Which,
        /// Why; kept with each message.
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// Says how many it would be and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// JSON instead of a table or a sentence.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Counts other bytes in place of a message's own; those that came are kept beside them.
    Edit {
        id: Uuid,
        /// The corrected value, at most 1 MiB.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Why; kept with the message.
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Args, Debug)]
pub struct FilterArguments {
    /// Only those with this reason, like `unknown_type`.
    #[arg(long, alias = "reason", value_parser = reason, value_name = "CODE")]
    reason_code: Option<Reason>,
    #[command(flatten)]
    other: OtherArguments,
}

#[derive(Args, Debug)]
#[group(id = "others", multiple = true)]
pub struct OtherArguments {
    /// Only those of this type, like `ORDER_CREATED`.
    #[arg(long = "type", value_parser = code, value_name = "CODE")]
    activity_type: Option<ActivityTypeCode>,
    /// Only those of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only those received at this time or later, like `2026-11-22T17:04:05Z`.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    from: Option<OffsetDateTime>,
    /// Only those received before this time.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    to: Option<OffsetDateTime>,
}

/// One, those that a filter names, or all; never all for want of a word.
#[derive(Args, Debug)]
pub struct Which {
    #[arg(required_unless_present_any = ["all", "reason_code", "activity_type", "topic", "from", "to"],
        conflicts_with_all = ["all", "reason_code", "activity_type", "topic", "from", "to"])]
    id: Option<Uuid>,
    #[arg(long, conflicts_with_all = ["reason_code", "activity_type", "topic", "from", "to"])]
    all: bool,
    /// Only those with this reason, like `unknown_type`.
    #[arg(long, value_parser = reason, value_name = "CODE")]
    reason_code: Option<Reason>,
    #[command(flatten)]
    other: OtherArguments,
}

impl OtherArguments {
    fn filter(self, id: Option<Uuid>, reason: Option<Reason>) -> Filter {
        Filter { id, reason, code: self.activity_type, topic: self.topic, from: self.from, to: self.to }
    }
}

/// What a replay prints.
#[derive(Serialize)]
struct Tried {
    #[serde(flatten)]
    replayed: Replayed,
    #[serde(skip_serializing_if = "Option::is_none")]
    figures: Option<Vec<FigureChange>>,
}

impl Quarantine {
    /// # Errors
    /// The database's, or there is no such message, or it does not wait.
    pub async fn run(self, pool: &Pool, time_zone: &str) -> anyhow::Result<()> {
        match self {
            Self::List { state, filter, limit, json } => {
                let filter = filter.other.filter(None, filter.reason_code);
                let (found, _) = quarantine::list(pool, &Page { state, filter, limit, after: After::NONE }).await?;
                show(json, &found, || listed(&found, "messages", table))
            }
            Self::Show { id, json } => show_one(pool, id, json).await,
            Self::Replay { which, force, dry_run, json, who } => {
                let author = who.author();
                let how = How { time_zone, force, author: &author, why: Reason::of_replay(force), dry_run };
                let tried = replay(pool, which, how).await?;
                show(json, &tried, || sentence(&tried))
            }
            Self::Discard { which: Which { id: Some(id), .. }, reason, dry_run, json, who } => {
                if dry_run || quarantine::discard(pool, id, &who.author(), &reason).await? != Discard::Done {
                    waiting(pool, id).await?;
                }
                let (entry, _) = quarantine::find(pool, id).await?.context("the message is gone")?;
                show(json, &entry, || table(std::slice::from_ref(&entry)))
            }
            Self::Discard { which, reason, dry_run, json, who } => {
                let pass = Pass::new(which.other.filter(None, which.reason_code));
                let mut discarding = Discarding { pool, pass, author: &who.author(), why: &reason, dry_run };
                let mut sum = Discarded::default();
                let would = if dry_run { "would be " } else { "" };
                let mut progress = Progress::begin();
                while let Some(step) = discarding.step(i64::MAX).await? {
                    sum.discarded += step.discarded.discarded;
                    progress.tell(format_args!("{would}discarded {} so far", sum.discarded));
                }
                show(json, &sum, || format!("{would}discarded {}", sum.discarded))
            }
            Self::Edit { id, file, reason, json, who } => {
                let value = read(&file)?;
                let author = who.author();
                let correction =
                    Correction { pool, time_zone, id, value: &value, author: &author, why: &reason, dry_run: false };
                match correction.apply().await? {
                    Corrected::Done | Corrected::Possible(_) => show_one(pool, id, json).await,
                    Corrected::NotWaiting | Corrected::Unknown => waiting(pool, id).await,
                    Corrected::Refused(why) => {
                        anyhow::bail!("these bytes cannot be counted ({}): {}", why.reason.as_str(), why.detail)
                    }
                }
            }
        }
    }
}

async fn replay(pool: &Pool, which: Which, how: How<'_>) -> anyhow::Result<Tried> {
    if let Some(id) = which.id {
        waiting(pool, id).await?;
    }
    let dry_run = how.dry_run;
    let mut replay = Replay::new(pool, Pass::new(which.other.filter(which.id, which.reason_code)), how);
    let (mut replayed, mut progress) = (Replayed::default(), Progress::begin());
    while let Some(done) = replay.step(i64::MAX).await? {
        replayed.add(done);
        progress.tell(format_args!("tried {} so far", replay.looked_for()));
    }
    Ok(Tried { replayed, figures: dry_run.then(|| replay.figures()) })
}

fn sentence(tried: &Tried) -> String {
    let Replayed { counted, duplicates, still_waiting } = tried.replayed;
    let would = if tried.figures.is_some() { "would be " } else { "" };
    let mut text = format!("{would}counted {counted}, duplicates {duplicates}, still waiting {still_waiting}");
    for one in tried.figures.iter().flatten() {
        text += &format!("\n{} {} +{}", one.activity_date, one.activity_type_code, one.change);
    }
    text
}

async fn show_one(pool: &Pool, id: Uuid, json: bool) -> anyhow::Result<()> {
    let found = quarantine::find(pool, id).await?.context("there is no message of this id")?;
    let as_text = |value: &[u8]| value.escape_ascii().to_string();
    let corrected = found.1.corrected.as_deref().map(|value| format!("\ncorrected: {}", as_text(value)));
    let text = found.1.came.as_deref().map_or_else(|| "no value".into(), as_text) + &corrected.unwrap_or_default();
    let whole = Whole::new(found);
    let header =
        |one: &Header| format!("{}: {}\n", as_text(one.name.as_bytes()), as_text(&one.value().unwrap_or_default()));
    let headers: String = whole.headers.iter().flatten().map(header).collect();
    show(json, &whole, || format!("{}\n{headers}{text}", table(std::slice::from_ref(&whole.entry))))
}

async fn waiting(pool: &Pool, id: Uuid) -> anyhow::Result<()> {
    let (entry, _) = quarantine::find(pool, id).await?.context("there is no message of this id")?;
    anyhow::ensure!(
        entry.state == QuarantineState::Waiting.as_str(),
        "the message does not wait any more; it is {}",
        entry.state
    );
    Ok(())
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    let opened = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    opened.take(LARGEST_FILE + 1).read_to_end(&mut value).with_context(|| file.display().to_string())?;
    anyhow::ensure!(value.len() as u64 <= LARGEST_FILE, "{}: it is larger than 1 MiB", file.display());
    Ok(value)
}

fn reason(text: &str) -> Result<Reason, String> {
    let all: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    Reason::parse(text).ok_or_else(|| format!("must be one of: {}", all.join(", ")))
}

fn code(text: &str) -> Result<ActivityTypeCode, String> {
    ActivityTypeCode::parse(text).ok_or_else(|| "must be a code like ORDER_CREATED".into())
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    timestamp(text).ok_or_else(|| "must be a moment like 2026-11-22T17:04:05Z".into())
}

fn table(entries: &[Entry]) -> String {
    let header = [
        "id",
        "place",
        "type",
        "key",
        "reference",
        "reason",
        "detail",
        "state",
        "messages",
        "received",
        "resolved",
        "by",
        "why",
    ];
    let rows = entries.iter().map(|one| {
        [
            one.id.to_string(),
            format!("{}:{}:{}", one.topic, one.partition, one.offset),
            one.activity_type_code.clone().unwrap_or_default(),
            one.key.clone().unwrap_or_default(),
            one.message_ref.map(|found| found.to_string()).unwrap_or_default(),
            one.reason.clone(),
            one.detail.clone(),
            one.state.clone(),
            one.messages.to_string(),
            one.received_at.format(&Rfc3339).unwrap_or_default(),
            one.resolved_at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
            one.resolved_by.clone().unwrap_or_default(),
            one.resolution.clone().unwrap_or_default(),
        ]
    });
    table::table(header, rows)
}

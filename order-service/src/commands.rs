//! The admin routes' work on the database itself, for operators with a shell.

use shared::database::Pool;
use std::io::Write;

use anyhow::Context;
use clap::Subcommand;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::messages::{
    self, OutboxMessage, Page, Retry, State,
    rebroadcast::{self, Span},
};

#[derive(Debug, Subcommand)]
pub enum Messages {
    /// Lists messages, newest first.
    List {
        #[arg(long, value_enum, default_value_t)]
        state: State,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
        limit: i64,
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Shows one message.
    Show {
        message_ref: Uuid,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Lets failed messages be sent again: one, or all.
    Retry {
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        message_ref: Option<Uuid>,
        #[arg(long)]
        all: bool,
        /// Says how many it would be and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// JSON instead of a sentence.
        #[arg(long)]
        json: bool,
    },
    /// Publishes published messages again, after a topic was lost. They are counted once all the same.
    Rebroadcast {
        /// Messages of what happened from this moment on (RFC 3339).
        #[arg(long, value_parser = moment)]
        from: OffsetDateTime,
        /// Messages of what happened before this moment (RFC 3339).
        #[arg(long, value_parser = moment)]
        to: OffsetDateTime,
        /// Says how many it would be and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// JSON instead of a sentence.
        #[arg(long)]
        json: bool,
    },
}

impl Messages {
    /// # Errors
    /// The database's, or there is no such message, or it cannot be retried.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match self {
            Self::List { state, limit, json } => {
                let (found, _) = messages::list(pool, &Page { state, limit, after: None }).await?;
                if json {
                    writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
                } else {
                    writeln!(out, "{}", table(&found))?;
                }
            }
            Self::Show { message_ref, json } => {
                let found =
                    messages::find(pool, message_ref).await?.context("there is no message of this reference")?;
                if json {
                    writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
                } else {
                    writeln!(out, "{}", table(&[found]))?;
                }
            }
            Self::Retry { message_ref: Some(message_ref), dry_run, json, .. } => {
                let found =
                    messages::find(pool, message_ref).await?.context("there is no message of this reference")?;
                anyhow::ensure!(
                    found.state == "failed",
                    "only a failed message can be sent again; this one is {}",
                    found.state
                );
                if !dry_run {
                    let done = messages::retry(pool, message_ref).await?;
                    anyhow::ensure!(matches!(done, Retry::Accepted(_)), "the message is not failed any more");
                }
                report(&mut out, "retried", 1, dry_run, json)?;
            }
            Self::Retry { message_ref: None, dry_run, json, .. } => {
                let count =
                    if dry_run { messages::count_failed(pool).await? } else { messages::retry_all(pool).await? };
                report(&mut out, "retried", count, dry_run, json)?;
            }
            Self::Rebroadcast { from, to, dry_run, json } => {
                let span = Span { from, to };
                let count = if dry_run {
                    rebroadcast::count(pool, span).await?
                } else {
                    rebroadcast::request(pool, span).await?;
                    rebroadcast::count(pool, span).await?
                };
                report(&mut out, "rebroadcast", count, dry_run, json)?;
            }
        }
        Ok(())
    }
}

/// What was done, or would have been, to how many messages.
fn report(out: &mut impl Write, done: &str, count: u64, dry_run: bool, json: bool) -> std::io::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::json!({ done: count, "dryRun": dry_run }))
    } else {
        writeln!(out, "{}{done} {count} messages", if dry_run { "would have " } else { "" })
    }
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "must be a moment like 2026-11-22T17:04:05Z".into())
}

fn table(messages: &[OutboxMessage]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["message", "type", "order", "placed", "state", "failures", "last error", "partition:offset"]);
    for one in messages {
        let place = one.partition.zip(one.offset).map(|(partition, offset)| format!("{partition}:{offset}"));
        table.add_row([
            one.message_ref.to_string(),
            one.activity_type_code.clone(),
            one.order_ref.clone(),
            one.placed_at.format(&Rfc3339).unwrap_or_default(),
            one.state.clone(),
            one.failures.to_string(),
            one.last_error.clone().unwrap_or_default(),
            place.unwrap_or_default(),
        ]);
    }
    table
}

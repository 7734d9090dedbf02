//! Messages: looked at, sent again, given up, held against the topic.

use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use outbox::rebroadcast::Span;
use shared::{
    contract::{
        message::{ActivityTypeCode, timestamp},
        text::parse_reason,
    },
    operators::{
        command::{Progress, Who},
        table,
    },
    runtime::{database::Pool, lifecycle::Exit, terminal},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{
    cell::Cell,
    config::Config,
    messages::{
        self, Decision, MessageFilter, MessagePage, OutboxMessage, State,
        history::{self, Event},
        part_of_error, verify,
    },
    order::OrderRef,
};

/// Which messages.
#[derive(Args, Clone, Debug, Default)]
pub struct Choice {
    /// Messages of this order only.
    #[arg(long, value_name = "ORDER_REF", value_parser = order)]
    order: Option<i64>,
    /// Messages of this type only, like ORDER_CREATED.
    #[arg(long = "type", value_name = "CODE", value_parser = code)]
    activity_type_code: Option<String>,
    /// Messages of what happened at this moment or later (RFC 3339).
    #[arg(long, value_parser = moment)]
    since: Option<OffsetDateTime>,
    /// Messages of what happened before this moment (RFC 3339).
    #[arg(long, value_parser = moment)]
    until: Option<OffsetDateTime>,
    /// Messages whose last error has this in it, in upper or lower case.
    #[arg(long, value_parser = error_part)]
    error: Option<String>,
}

impl From<Choice> for MessageFilter {
    fn from(choice: Choice) -> Self {
        let Choice { order, activity_type_code, since, until, error } = choice;
        Self { order_id: order, activity_type_code, from: since, to: until, error }
    }
}

#[derive(Debug, Subcommand)]
pub enum Messages {
    /// Lists messages, newest first.
    List {
        #[arg(long, value_enum, default_value_t)]
        state: State,
        #[command(flatten)]
        choice: Choice,
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
    /// Tells what happened to one message: each attempt, when, what and by whom.
    History {
        message_ref: Uuid,
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Gives one failed message up: it is never sent, and stays to be looked at.
    Discard {
        message_ref: Uuid,
        /// Why; kept with the message.
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Lets failed messages be sent again: one, or all, or those that are chosen.
    Retry {
        #[arg(
            required_unless_present = "all",
            conflicts_with_all = ["all", "order", "activity_type_code", "since", "until", "error"]
        )]
        message_ref: Option<Uuid>,
        /// All that the other arguments choose.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        choice: Choice,
        /// Why; kept in the audit.
        #[arg(long, value_parser = parse_reason)]
        reason: Option<String>,
        #[command(flatten)]
        who: Who,
        /// Says how many it would be and changes nothing.
        #[arg(long)]
        dry_run: bool,
        /// JSON instead of a sentence.
        #[arg(long)]
        json: bool,
    },
    /// Holds a span of the outbox against the topic: what is announced there and unknown here, and what is published
    /// here and does not stand there. Changes nothing; ends with code 1 where they differ.
    Verify {
        /// Messages of what happened from this moment on (RFC 3339).
        #[arg(long, value_parser = moment)]
        from: OffsetDateTime,
        /// Messages of what happened before this moment (RFC 3339).
        #[arg(long, value_parser = moment)]
        to: OffsetDateTime,
        /// The sums as JSON; each difference is a line on standard error then.
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
        #[command(flatten)]
        who: Who,
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
    /// The database's or Kafka's, or there is no such message, or it cannot be retried.
    pub async fn run(self, config: &Config, pool: &Pool) -> anyhow::Result<Exit> {
        let mut out = std::io::stdout().lock();
        match self {
            Self::List { state, choice, limit, json } => {
                let page = MessagePage { state, filter: choice.into(), limit, after: None };
                let found = whole(pool, page).await?;
                if json {
                    writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
                } else if found.is_empty() {
                    writeln!(out, "There are no such messages.")?;
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
            Self::History { message_ref, json } => {
                let found = history::of_message(pool, message_ref).await?;
                anyhow::ensure!(!found.is_empty(), "there is no message of this reference");
                if json {
                    writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
                } else {
                    writeln!(out, "{}", events(&found))?;
                }
            }
            Self::Discard { message_ref, reason, json, who } => {
                let discarded = match messages::discard(pool, message_ref, &who.author(), &reason).await? {
                    Decision::Accepted(message) => *message,
                    Decision::NotFailed => anyhow::bail!("only a failed message can be discarded"),
                    Decision::Unknown => anyhow::bail!("there is no message of this reference"),
                };
                if json {
                    writeln!(out, "{}", serde_json::to_string_pretty(&discarded)?)?;
                } else {
                    writeln!(out, "{}", table(&[discarded]))?;
                }
            }
            Self::Retry { message_ref: Some(message_ref), reason, dry_run, json, who, .. } => {
                let found =
                    messages::find(pool, message_ref).await?.context("there is no message of this reference")?;
                anyhow::ensure!(
                    found.state == "failed",
                    "only a failed message can be sent again; this one is {}",
                    found.state
                );
                if !dry_run {
                    let done = messages::retry(pool, message_ref, &who.author(), reason.as_deref()).await?;
                    anyhow::ensure!(matches!(done, Decision::Accepted(_)), "the message is not failed any more");
                }
                report(&mut out, "retried", 1, dry_run, json)?;
            }
            Self::Retry { message_ref: None, choice, reason, dry_run, json, who, .. } => {
                let filter = choice.into();
                let count = if dry_run {
                    messages::count_failed(pool, &filter).await?
                } else {
                    let mut progress = Progress::begin();
                    let tell = |retried: u64| progress.tell(format_args!("retried {retried} messages so far"));
                    messages::retry_all(pool, &filter, &who.author(), reason.as_deref(), tell).await?
                };
                report(&mut out, "retried", count, dry_run, json)?;
            }
            Self::Rebroadcast { from, to, who, dry_run, json } => {
                let Some(span) = span(from, to) else { return Ok(Exit::WrongSettings) };
                if !dry_run {
                    messages::rebroadcast(pool, span, &who.author()).await?;
                    // Counting a large span takes a while, and may fail: it is under way all the same.
                    terminal::complain("it is under way, whatever becomes of this command; counting its messages");
                }
                let count = outbox::rebroadcast::count(pool, span).await?;
                report(&mut out, "rebroadcast", count, dry_run, json)?;
            }
            Self::Verify { from, to, json } => {
                let Some(span) = span(from, to) else { return Ok(Exit::WrongSettings) };
                let source = Cell::of(pool).await?.source();
                let reader = verify::Reader::new(&config.outbox.kafka, &config.outbox.topic.name, source)?;
                // Whoever reads: the exit code is what was found.
                let mut out = terminal::ToWhoeverReads(out);
                let found = if json {
                    verify::compare(pool, &reader, span, &mut terminal::ToWhoeverReads(std::io::stderr())).await?
                } else {
                    verify::compare(pool, &reader, span, &mut out).await?
                };
                print_found(&mut out, &found, json)?;
                return Ok(if found.agree() { Exit::Stopped } else { Exit::Failed });
            }
        }
        Ok(Exit::Stopped)
    }
}

/// None where nothing is between the two, which is told: it would pass for right.
fn span(from: OffsetDateTime, to: OffsetDateTime) -> Option<Span> {
    if from >= to {
        terminal::complain("--from: must be before --to");
    }
    (from < to).then_some(Span { from, to })
}

fn print_found(out: &mut impl Write, found: &verify::Found, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(found)?)?;
        return Ok(());
    }
    let verify::Found { on_topic, unknown, published, missing, deleted, not_published } = found;
    writeln!(out, "on the topic: {on_topic} messages, {unknown} of them unknown to the outbox")?;
    writeln!(
        out,
        "published: {published} messages, {missing} of them missing on the topic, {deleted} deleted by its retention"
    )?;
    writeln!(out, "not published: {not_published} messages")?;
    Ok(())
}

/// What was done, or would have been, to how many messages.
fn report(out: &mut impl Write, done: &str, count: u64, dry_run: bool, json: bool) -> std::io::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::json!({ done: count, "dryRun": dry_run }))
    } else {
        writeln!(out, "{}{done} {count} messages", if dry_run { "would have " } else { "" })
    }
}

/// As many messages as are wanted, whatever a page looks at.
async fn whole(pool: &Pool, mut page: MessagePage) -> anyhow::Result<Vec<OutboxMessage>> {
    let (mut found, mut next) = messages::list(pool, &page).await?;
    let limit = page.limit;
    while let Some(cursor) = next.filter(|_| i64::try_from(found.len()).is_ok_and(|count| count < limit)) {
        page = page.next(&cursor);
        page.limit = limit - i64::try_from(found.len()).unwrap_or(limit);
        let (more, following) = messages::list(pool, &page).await?;
        found.extend(more);
        next = following;
    }
    Ok(found)
}

fn order(text: &str) -> Result<i64, String> {
    OrderRef::parse(text)
        .map(OrderRef::number)
        .ok_or_else(|| "must be the reference of an order, like OS000042-ORD".into())
}

fn code(text: &str) -> Result<String, String> {
    let code = ActivityTypeCode::parse(text).map(|code| code.as_str().to_owned());
    code.ok_or_else(|| "must be the code of a type, like ORDER_CREATED".into())
}

fn error_part(text: &str) -> Result<String, String> {
    part_of_error(text).ok_or_else(|| "must be 1 to 200 visible characters".into())
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    timestamp(text).ok_or_else(|| "must be a moment like 2026-11-22T17:04:05Z".into())
}

fn table(messages: &[OutboxMessage]) -> String {
    let rows = messages.iter().map(|one| {
        let place = one.partition.zip(one.offset).map(|(partition, offset)| format!("{partition}:{offset}"));
        [
            one.message_ref.to_string(),
            one.activity_type_code.clone(),
            one.order_ref.clone(),
            one.placed_at.format(&Rfc3339).unwrap_or_default(),
            one.state.clone(),
            one.failures.to_string(),
            one.last_error.clone().unwrap_or_default(),
            place.unwrap_or_default(),
        ]
    });
    table::table(["message", "type", "order", "placed", "state", "failures", "last error", "partition:offset"], rows)
}

fn events(events: &[Event]) -> String {
    let rows = events.iter().map(|one| {
        let place = one.partition.zip(one.offset).map(|(partition, offset)| format!("{partition}:{offset}"));
        [
            one.at.format(&Rfc3339).unwrap_or_default(),
            one.event.clone(),
            one.by.clone().unwrap_or_default(),
            one.failures.map(|failures| failures.to_string()).unwrap_or_default(),
            one.reason.clone().unwrap_or_default(),
            place.unwrap_or_default(),
        ]
    });
    table::table(["at", "event", "by", "failures", "reason", "partition:offset"], rows)
}

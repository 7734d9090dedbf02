//! Who changed what, when and why. A row is written by the transaction that makes the change; rows are added
//! and read, and the services' roles can do nothing else with them.
//!
//! The table is the same in both databases, and so is what is asked of it: see [`crate::audit_table`].

mod author;
mod table;

pub use author::{Author, parse_actor};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::{OffsetDateTime, macros::datetime};
use tokio::sync::mpsc;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    contract::text::{self, MOST_OF_A_REASON},
    runtime::{
        database::{Failure, is_forbidden},
        telemetry::ALWAYS,
    },
    web::{
        http::{Operation, Parameter, schema},
        paging::Cursor,
        problem::{Problem, Violation},
        query::Query,
    },
};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    OrderCompleted,
    OrderCancelled,
    MessageRetried,
    MessageDiscarded,
    MessagesRebroadcast,
    CustomerErased,
    AnnouncingPaused,
    AnnouncingResumed,
    CountingPaused,
    CountingResumed,
    TypeRegistered,
    TypeRenamed,
    QuarantineReplayed,
    QuarantineDiscarded,
    QuarantineEdited,
    GapClosed,
    CalendarRenamed,
    LogLevelChanged,
}

impl Action {
    const ALL: [Self; 18] = [
        Self::OrderCompleted,
        Self::OrderCancelled,
        Self::MessageRetried,
        Self::MessageDiscarded,
        Self::MessagesRebroadcast,
        Self::CustomerErased,
        Self::AnnouncingPaused,
        Self::AnnouncingResumed,
        Self::CountingPaused,
        Self::CountingResumed,
        Self::TypeRegistered,
        Self::TypeRenamed,
        Self::QuarantineReplayed,
        Self::QuarantineDiscarded,
        Self::QuarantineEdited,
        Self::GapClosed,
        Self::CalendarRenamed,
        Self::LogLevelChanged,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderCompleted => "order_completed",
            Self::OrderCancelled => "order_cancelled",
            Self::MessageRetried => "message_retried",
            Self::MessageDiscarded => "message_discarded",
            Self::MessagesRebroadcast => "messages_rebroadcast",
            Self::CustomerErased => "customer_erased",
            Self::AnnouncingPaused => "announcing_paused",
            Self::AnnouncingResumed => "announcing_resumed",
            Self::CountingPaused => "counting_paused",
            Self::CountingResumed => "counting_resumed",
            Self::TypeRegistered => "type_registered",
            Self::TypeRenamed => "type_renamed",
            Self::QuarantineReplayed => "quarantine_replayed",
            Self::QuarantineDiscarded => "quarantine_discarded",
            Self::QuarantineEdited => "quarantine_edited",
            Self::GapClosed => "gap_closed",
            Self::CalendarRenamed => "calendar_renamed",
            Self::LogLevelChanged => "log_level_changed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }

    fn schema() -> RefOr<Schema> {
        schema::one_of(Self::ALL.map(Self::as_str))
    }
}

/// One row, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub struct Entry {
    #[serde(skip)]
    pub audit_id: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The subject of the token, the name given on the command line, or the address that asked the management port.
    pub actor: String,
    #[schema(schema_with = via)]
    pub via: String,
    #[schema(schema_with = Action::schema)]
    pub action: String,
    /// What was changed: an order, a message or a span of them, a type, a level.
    pub subject: String,
    #[schema(required)]
    pub reason: Option<String>,
    /// Names the request in the log.
    #[schema(required)]
    pub request_id: Option<String>,
    /// Of the command line: the system's user, and the database's role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_role: Option<String>,
}

fn via() -> RefOr<Schema> {
    schema::one_of(["api", "command", "management"])
}

/// Before and after everything: bounds that are always there make one query.
const EVER: (OffsetDateTime, OffsetDateTime) = (datetime!(0001-01-01 0:00 UTC), datetime!(9999-12-31 0:00 UTC));

/// What the list is narrowed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filter {
    pub action: Option<&'static str>,
    pub actor: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub from: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub to: OffsetDateTime,
}

/// A place in the list, between two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaceInAudit {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub audit_id: i64,
}

/// One page of the list, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    pub filter: Filter,
    pub limit: i64,
    after: Option<PlaceInAudit>,
}

impl Page {
    /// # Errors
    /// 400 for what does not parse or is not known, 422 for a limit out of range or times the wrong way round.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let mut query = Query::parse(query, &["action", "actor", "from", "to", "limit", "cursor"])?;
        let filter = Filter {
            action: query.get("action", "an action", Action::parse)?.map(Action::as_str),
            actor: query.get("actor", "1 to 255 visible characters", parse_actor)?,
            from: query.time("from")?.unwrap_or(EVER.0),
            to: query.time("to")?.unwrap_or(EVER.1),
        };
        in_order(filter.from, filter.to)?;
        let limit = query.limit()?;
        let after = query.get("cursor", "a cursor of this list", |text| Cursor::decode(text, &filter))?;
        Ok(Self { filter, limit, after })
    }

    /// Rows of the page stand before this place. "Before a time" is "before its first row".
    #[must_use]
    pub fn before(&self) -> PlaceInAudit {
        let end = PlaceInAudit { at: self.filter.to, audit_id: 0 };
        self.after.map_or(end, |after| after.min(end))
    }
}

/// # Errors
/// 422 where `from` is after `to`.
pub fn in_order(from: OffsetDateTime, to: OffsetDateTime) -> Result<(), Problem> {
    if from > to {
        return Err(Problem::unprocessable(vec![Violation::new("/from", "This must not be after to.")]));
    }
    Ok(())
}

/// The required parameter `reason` of a change.
///
/// # Errors
/// 400 without one, 422 where it cannot be kept.
pub fn reason(query: &mut Query) -> Result<String, Problem> {
    let given = query.text("reason").ok_or_else(|| Problem::bad_request("The query parameter reason is required."))?;
    text::reason(&given).ok_or_else(|| {
        let rule = format!("This must be 1 to {MOST_OF_A_REASON} visible characters.");
        Problem::unprocessable(vec![Violation::new("/reason", rule)])
    })
}

/// The document's entry of the list.
#[must_use]
pub fn documented(operation: Operation) -> Operation {
    let time = || schema::formatted("date-time");
    operation
        .named("listAudit", "Who changed what, when and why, newest first", "")
        .parameter(Parameter::query("action", "Only this.", Action::schema()))
        .parameter(Parameter::query("actor", "Only what this one did.", schema::visible(255, "operator-7")))
        .parameter(Parameter::query("from", "What was done at this time or later.", time()))
        .parameter(Parameter::query("to", "What was done before this time.", time()))
        .answers_page::<Entry>(
            "A page.",
            json!([{
                "at": "2026-11-22T17:04:05.123456Z", "actor": "operator-7", "via": "api", "action": "log_level_changed",
                "subject": "debug", "reason": null, "requestId": "0192f0c3-4a11-7d5e-8f00-2b6c1d9e3a77"
            }]),
        )
}

/// What was done outside of any transaction, on its way to the table.
#[derive(Debug)]
pub struct Deed {
    pub done_at: tokio::time::Instant,
    pub author: Author,
    pub action: Action,
    pub subject: String,
}

impl Deed {
    /// Tells of one that the table will not have.
    pub fn stands_in_the_log_only(&self) {
        let (action, subject, actor) = (self.action.as_str(), self.subject.as_str(), self.author.actor.as_str());
        tracing::warn!(target: ALWAYS, action, subject, actor, "what was done stands in the log only");
    }
}

/// Whether the database will not have a row however often it is given it. A privilege that lacks can be given.
#[must_use]
pub fn is_refused(error: &sqlx::Error) -> bool {
    matches!(Failure::of(error), Failure::Refused | Failure::Defect) && !is_forbidden(error)
}

/// Deeds that wait for the database: whoever does more of them meanwhile finds them in the log only.
const WAITING_DEEDS: usize = 100;

/// After this long it is tried again. Where only the answer was lost the row is there twice, which tells no lie.
pub const WRITTEN_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// Where deeds are left, and where they are taken from.
#[must_use]
pub fn deeds() -> (mpsc::Sender<Deed>, mpsc::Receiver<Deed>) {
    mpsc::channel(WAITING_DEEDS)
}

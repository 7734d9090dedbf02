//! Which messages a query or a body asks for.

use serde::Deserialize;
use shared::{
    contract::message::{ActivityTypeCode, timestamp},
    web::{
        paging::Cursor,
        problem::{Problem, Violation},
        query::Query,
    },
};
use utoipa::ToSchema;

use crate::quarantine::{Filter, Page, QuarantineState, Reason, filter::After};

/// A filter in a body.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = QuarantineFilter)]
pub struct FilterBody {
    #[schema(value_type = Option<Reason>)]
    reason: Option<String>,
    #[schema(value_type = Option<ActivityTypeCode>)]
    activity_type_code: Option<String>,
    topic: Option<String>,
    /// Received at this time or later.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Received before this time.
    #[schema(format = DateTime)]
    to: Option<String>,
}

impl Filter {
    /// The names of its parameters in a query.
    pub const PARAMETERS: [&str; 5] = ["reason", "activityTypeCode", "topic", "from", "to"];

    /// # Errors
    /// 400 for what does not parse.
    pub fn of_query(query: &mut Query) -> Result<Self, Problem> {
        Ok(Self {
            id: None,
            reason: query.get("reason", "a reason like unknown_type", Reason::parse)?,
            code: query.get("activityTypeCode", "a code like ORDER_CREATED", ActivityTypeCode::parse)?,
            topic: query.text("topic"),
            from: query.time("from")?,
            to: query.time("to")?,
        })
    }

    /// # Errors
    /// Everything that does not parse, by place below `pointer`.
    pub fn of_body(body: &FilterBody, pointer: &str) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let mut wrong = |name: &str, rule: &str| violations.push(Violation::new(format!("{pointer}/{name}"), rule));
        let reason = body.reason.as_deref().map(Reason::parse);
        if reason == Some(None) {
            wrong("reason", "This must be a reason like unknown_type.");
        }
        let code = body.activity_type_code.as_deref().map(ActivityTypeCode::parse);
        if code == Some(None) {
            wrong("activityTypeCode", "This must be a code like ORDER_CREATED.");
        }
        let [from, to] = [("from", &body.from), ("to", &body.to)].map(|(name, text)| {
            let time = text.as_deref().map(timestamp);
            if time == Some(None) {
                wrong(name, "This must be an RFC 3339 time.");
            }
            time.flatten()
        });
        let filter =
            Self { id: None, reason: reason.flatten(), code: code.flatten(), topic: body.topic.clone(), from, to };
        if violations.is_empty() { Ok(filter) } else { Err(violations) }
    }
}

impl Page {
    /// # Errors
    /// 400 for what does not parse or is not known, 422 for a limit out of range.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let known = [&["state", "limit", "cursor"][..], &Filter::PARAMETERS].concat();
        let mut query = Query::parse(query, &known)?;
        let state = query.get("state", "waiting, counted or discarded", QuarantineState::parse)?.unwrap_or_default();
        let filter = Filter::of_query(&mut query)?;
        let mut page = Self { state, filter, limit: query.limit()?, after: After::NONE };
        let cursor = query.get("cursor", "a cursor of this list", |text| Cursor::decode(text, &page.key()))?;
        page.after = cursor.unwrap_or(After::NONE);
        Ok(page)
    }
}

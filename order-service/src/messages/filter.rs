//! What a list of messages, or a retry of many, is narrowed to.

use serde::Serialize;
use shared::{
    audit::in_order,
    http::{Parameter, schema},
    message::ActivityTypeCode,
    problem::Problem,
    query::Query,
    text,
};
use time::{Duration, OffsetDateTime, macros::datetime};
use utoipa::PartialSchema;
use uuid::Uuid;

use crate::order::OrderRef;

/// The longest part of an error that can be looked for, in characters.
const MOST_OF_AN_ERROR: usize = 200;
/// Before and after everything: bounds that are always there make one query.
const EVER: (OffsetDateTime, OffsetDateTime) = (datetime!(0001-01-01 0:00 UTC), datetime!(9999-12-31 0:00 UTC));
/// A message's reference is drawn before its order is placed: as long before as a placement waits, or is repeated
/// after a lost answer. Of the few that took longer a list from that very time on may lack some.
const DRAWN_WITHIN: Duration = Duration::minutes(10);
/// Instances draw references by the database's clock as they know it.
const CLOCKS_DIFFER: Duration = Duration::seconds(10);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessageFilter {
    pub order_id: Option<i64>,
    pub activity_type_code: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub from: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub to: Option<OffsetDateTime>,
    /// A part of the last error's text, in upper or lower case.
    pub error: Option<String>,
}

impl MessageFilter {
    pub const PARAMETERS: [&str; 5] = ["orderRef", "activityTypeCode", "from", "to", "error"];

    /// For the document.
    #[must_use]
    pub fn parameters() -> [Parameter; 5] {
        let time = || schema::formatted("date-time");
        let order_ref = schema::matching("^[Oo][Ss][0-9]{6,19}-[Oo][Rr][Dd]$", "OS000042-ORD");
        [
            Parameter::query("orderRef", "Messages of this order only.", order_ref),
            Parameter::query("activityTypeCode", "Messages of this type only.", ActivityTypeCode::schema()),
            Parameter::query("from", "Messages of what happened at this time or later.", time()),
            Parameter::query("to", "Messages of what happened before this time.", time()),
            Parameter::query(
                "error",
                "Messages whose last error has this in it, in upper or lower case.",
                schema::visible(MOST_OF_AN_ERROR, "too large"),
            ),
        ]
    }

    /// # Errors
    /// 400 for what does not parse, 422 where `from` is after `to`.
    pub fn read(query: &mut Query) -> Result<Self, Problem> {
        let filter = Self {
            order_id: query.get("orderRef", "the reference of an order", OrderRef::parse)?.map(OrderRef::number),
            activity_type_code: query
                .get("activityTypeCode", "the code of a type", ActivityTypeCode::parse)?
                .map(|code| code.as_str().to_owned()),
            from: query.time("from")?,
            to: query.time("to")?,
            error: query.get("error", "1 to 200 visible characters", part_of_error)?,
        };
        in_order(filter.from(), filter.to())?;
        Ok(filter)
    }

    #[must_use]
    pub fn from(&self) -> OffsetDateTime {
        self.from.unwrap_or(EVER.0)
    }

    #[must_use]
    pub fn to(&self) -> OffsetDateTime {
        self.to.unwrap_or(EVER.1)
    }

    /// References of the messages lie between these two.
    #[must_use]
    pub fn references(&self) -> (Uuid, Uuid) {
        let from = self.from.map_or(Uuid::nil(), |from| first_reference(from.saturating_sub(DRAWN_WITHIN)));
        let to = self.to.map_or(Uuid::max(), |to| first_reference(to.saturating_add(CLOCKS_DIFFER)));
        (from, to)
    }
}

/// A part of an error that is looked for.
#[must_use]
pub fn part_of_error(text: &str) -> Option<String> {
    text::visible(text, MOST_OF_AN_ERROR)
}

/// The least reference that can be drawn at a moment; see the function of this name in the schema.
fn first_reference(moment: OffsetDateTime) -> Uuid {
    let millis = (moment.unix_timestamp_nanos() / 1_000_000).clamp(0, (1 << 48) - 1);
    Uuid::from_u128(millis.unsigned_abs() << 80)
}

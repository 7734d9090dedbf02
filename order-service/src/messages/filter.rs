//! What a list of messages, or a retry of many, is narrowed to.

use serde::Serialize;
use shared::contract::text;
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;

/// The longest part of an error that can be looked for, in characters.
pub(crate) const MOST_OF_AN_ERROR: usize = 200;
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

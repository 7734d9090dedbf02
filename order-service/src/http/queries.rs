//! What the queries of lists ask for.

use shared::{
    contract::{customer::CustomerRef, message::ActivityTypeCode},
    operators::audit::in_order,
    web::{
        http::{Parameter, schema},
        paging::Cursor,
        problem::Problem,
        query::Query,
    },
};
use utoipa::PartialSchema;

use crate::{
    messages::{MOST_OF_AN_ERROR, MessageFilter, MessagePage, State, part_of_error},
    order::{OrderFilter, OrderPage, OrderRef, STATUSES, Status},
};

impl OrderPage {
    /// The parameters of a list that narrow it.
    pub fn parameters() -> [Parameter; 3] {
        [
            Parameter::query(
                "status",
                "Orders of this status only. Where few have it, a page may be shorter than its limit, and there is a next one all the same.",
                schema::named::<Status>(),
            ),
            Parameter::query("placedFrom", "Orders placed at this time or later.", schema::formatted("date-time")),
            Parameter::query("placedBefore", "Orders placed before this time.", schema::formatted("date-time")),
        ]
    }

    /// Reads the parameters of a list; `customer_ref` is that of the path, where there is one. Where
    /// `only` is given, nobody else's orders are in the list, whatever is asked for.
    ///
    /// # Errors
    /// 400 for what does not parse or is not known, 422 for a limit out of range.
    pub fn parse(query: &str, customer_ref: Option<String>, only: Option<CustomerRef>) -> Result<Self, Problem> {
        let known = ["limit", "cursor", "status", "placedFrom", "placedBefore", "customerRef"];
        // A list of one customer has its filter in the path.
        let known = if customer_ref.is_some() { &known[..5] } else { &known[..] };
        let mut query = Query::parse(query, known)?;
        let filter = OrderFilter {
            customer_ref: customer_ref
                .or_else(|| query.text("customerRef"))
                // As it is stored. What no order can have any more may stand in old ones.
                .map(|text| CustomerRef::parse(&text).map_or(text, |known| known.as_str().to_owned()))
                .or_else(|| only.as_ref().map(|only| only.as_str().to_owned())),
            status: query
                .get("status", "a status of an order", |text| STATUSES.contains(&text).then(|| text.to_owned()))?,
            placed_from: query.time("placedFrom")?,
            placed_before: query.time("placedBefore")?,
        };
        let limit = query.limit()?;
        let after = query.get("cursor", "a cursor of this list", |text| Cursor::decode(text, &filter))?;
        Ok(Self { filter, only, limit, after })
    }
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
}

impl MessagePage {
    /// # Errors
    /// 400 for what does not parse or is not known, 422 for a limit out of range.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let known = [&["state", "limit", "cursor"], &MessageFilter::PARAMETERS[..]].concat();
        let mut query = Query::parse(query, &known)?;
        let state =
            query.get("state", "failed, unpublished, published or discarded", State::parse)?.unwrap_or_default();
        let filter = MessageFilter::read(&mut query)?;
        let mut page = Self { state, filter, limit: query.limit()?, after: None };
        page.after = query.get("cursor", "a cursor of this list", |text| page.place(text))?;
        Ok(page)
    }
}

//! Orders newest first, page by page. A page ends at a place in the order of the list, not after a
//! number of rows: orders placed while somebody pages move nothing.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use shared::{
    contract::customer::CustomerRef,
    runtime::database::Pool,
    web::{
        http::schema,
        paging::{self, Cursor},
    },
};
use time::{OffsetDateTime, macros::datetime};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{OrderRef, OrderSummary};

pub(crate) const STATUSES: [&str; 5] = ["New", "Pending", "Placed", "Fulfilled", "Cancelled"];
/// Before and after everything that can be placed: bounds that are always there make one query.
const EVER: (OffsetDateTime, OffsetDateTime) = (datetime!(0001-01-01 0:00 UTC), datetime!(9999-12-31 0:00 UTC));

/// The statuses there are, for the document.
#[derive(Clone, Copy, Debug)]
pub struct Status;

impl ToSchema for Status {
    fn name() -> Cow<'static, str> {
        "OrderStatus".into()
    }
}

impl PartialSchema for Status {
    fn schema() -> RefOr<Schema> {
        schema::one_of(STATUSES)
    }
}

/// Orders that one page looks at for a status, however few have it: some 100 ms. A page of which little passes ends there,
/// shorter than its limit, and the next one goes on.
const LOOKED_AT: i64 = 50_000;

/// What a list is narrowed to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub placed_from: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub placed_before: Option<OffsetDateTime>,
}

/// One page of a list: from where, and how much.
#[derive(Clone, Debug)]
pub struct OrderPage {
    pub filter: OrderFilter,
    /// The only customer whose orders the caller sees.
    pub only: Option<CustomerRef>,
    pub limit: i64,
    pub after: Option<PlaceInOrders>,
}

/// A place among the orders, as they are listed, exported and erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaceInOrders {
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
    pub order_id: i64,
}

impl PlaceInOrders {
    /// Before the first.
    pub const BEGINNING: Self = Self { placed_at: datetime!(0001-01-01 0:00 UTC), order_id: 0 };
}

/// The page, and the cursor of the next one where there is more.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, page: &OrderPage) -> Result<(Vec<OrderSummary>, Option<String>), sqlx::Error> {
    let from = page.filter.placed_from.unwrap_or(EVER.0);
    // "Before a time" is "before its first order": one bound serves the filter and the cursor.
    let before = PlaceInOrders { placed_at: page.filter.placed_before.unwrap_or(EVER.1), order_id: 0 };
    let before = before.min(page.after.unwrap_or(before));
    let limit = page.limit + 1;
    let status = page.filter.status.as_deref();
    let mut found = match page.filter.customer_ref.as_deref() {
        // PostgreSQL has no such character in a text: nobody can have it in a reference.
        Some(customer_ref) if customer_ref.contains('\0') => Vec::new(),
        // Not asked for at all: how long an answer takes would tell how many orders somebody else has.
        Some(customer_ref) if page.only.as_ref().is_some_and(|only| only.as_str() != customer_ref) => Vec::new(),
        Some(customer_ref) => {
            sqlx::query_as!(
                Row,
                r#"
            SELECT order_id, customer_ref, status, number_of_items, placed_at
            FROM (
                SELECT * FROM orders WHERE customer_ref = $1 AND placed_at >= $2 AND (placed_at, order_id) < ($3, $4)
                ORDER BY placed_at DESC, order_id DESC LIMIT $7
            ) AS looked_at
            WHERE $5::text IS NULL OR status = $5
            ORDER BY placed_at DESC, order_id DESC LIMIT $6
            "#,
                customer_ref,
                from,
                before.placed_at,
                before.order_id,
                status,
                limit,
                LOOKED_AT
            )
            .fetch_all(pool)
            .await?
        }
        // Never for a customer, who is a filter.
        None => {
            sqlx::query_as!(
                Row,
                r#"
            SELECT order_id, customer_ref, status, number_of_items, placed_at
            FROM (
                SELECT * FROM orders WHERE placed_at >= $1 AND (placed_at, order_id) < ($2, $3)
                ORDER BY placed_at DESC, order_id DESC LIMIT $6
            ) AS looked_at
            WHERE $4::text IS NULL OR status = $4
            ORDER BY placed_at DESC, order_id DESC LIMIT $5
            "#,
                from,
                before.placed_at,
                before.order_id,
                status,
                limit,
                LOOKED_AT
            )
            .fetch_all(pool)
            .await?
        }
    }
    .into_iter()
    .map(OrderSummary::from)
    .collect::<Vec<_>>();
    let place = |last: &OrderSummary| PlaceInOrders { placed_at: last.placed_at, order_id: last.order_ref.number() };
    let mut next = paging::cut(&mut found, page.limit, place, &page.filter);
    if next.is_none() && status.is_some() {
        let floor = floor(pool, page, from, before).await?;
        // Where orders have come since, this floor is above the one of the page.
        let floor = floor.map(|floor| found.last().map_or(floor, |last| floor.min(place(last))));
        next = floor.map(|floor| Cursor::encode(&floor, &page.filter));
    }
    Ok((found, next))
}

/// The place at which a page before `before` has looked at enough; none where there is less.
async fn floor(
    pool: &Pool,
    page: &OrderPage,
    from: OffsetDateTime,
    before: PlaceInOrders,
) -> Result<Option<PlaceInOrders>, sqlx::Error> {
    match page.filter.customer_ref.as_deref() {
        Some(customer_ref) if page.only.as_ref().is_some_and(|only| only.as_str() != customer_ref) => Ok(None),
        Some(customer_ref) if customer_ref.contains('\0') => Ok(None),
        Some(customer_ref) => {
            sqlx::query_as!(
                PlaceInOrders,
                r#"
                SELECT placed_at, order_id FROM orders
                WHERE customer_ref = $1 AND placed_at >= $2 AND (placed_at, order_id) < ($3, $4)
                ORDER BY placed_at DESC, order_id DESC OFFSET $5::bigint - 1 LIMIT 1
                "#,
                customer_ref,
                from,
                before.placed_at,
                before.order_id,
                LOOKED_AT
            )
            .fetch_optional(pool)
            .await
        }
        None => {
            sqlx::query_as!(
                PlaceInOrders,
                r#"
                SELECT placed_at, order_id FROM orders
                WHERE placed_at >= $1 AND (placed_at, order_id) < ($2, $3)
                ORDER BY placed_at DESC, order_id DESC OFFSET $4::bigint - 1 LIMIT 1
                "#,
                from,
                before.placed_at,
                before.order_id,
                LOOKED_AT
            )
            .fetch_optional(pool)
            .await
        }
    }
}

struct Row {
    order_id: i64,
    customer_ref: String,
    status: String,
    number_of_items: i16,
    placed_at: OffsetDateTime,
}

impl From<Row> for OrderSummary {
    fn from(row: Row) -> Self {
        Self {
            order_ref: OrderRef::from_number(row.order_id),
            customer_ref: row.customer_ref,
            number_of_items: usize::try_from(row.number_of_items).expect("the schema has it at least 1"),
            status_name: row.status,
            placed_at: row.placed_at,
        }
    }
}

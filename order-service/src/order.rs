//! What an order is: the types a caller's request is parsed into, and the order as it is read.

mod listing;

use std::fmt;

pub(crate) use listing::STATUSES;
pub use listing::{OrderFilter, OrderPage, PlaceInOrders, Status, list};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected},
};
use serde_json::value::RawValue;
use shared::{
    contract::customer::CustomerRef,
    runtime::database::Pool,
    web::{http::schema, json::Object, problem::Violation},
};
use time::OffsetDateTime;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

const MAX_LINES: usize = 200;
const QUANTITY: std::ops::RangeInclusive<i64> = 1..=1_000_000;

/// The name of an order outside: `OS` + its number, at least six digits, + `-ORD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderRef(i64);

impl OrderRef {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_uppercase();
        let digits = text.strip_prefix("OS")?.strip_suffix("-ORD")?;
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
        let found = Self(number);
        // One order has one name: 0000042 is not another way to write 000042.
        (number > 0 && found.to_string() == text).then_some(found)
    }

    #[must_use]
    pub fn from_number(order_id: i64) -> Self {
        Self(order_id)
    }

    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for OrderRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OS{:06}-ORD", self.0)
    }
}

impl Serialize for OrderRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl ToSchema for OrderRef {}

impl PartialSchema for OrderRef {
    fn schema() -> RefOr<Schema> {
        schema::matching("^OS[0-9]{6,19}-ORD$", "OS000042-ORD")
    }
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    /// What is ordered.
    pub product_id: Uuid,
    /// How many of it.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub quantity: i32,
}

/// An order that fits every rule and is not placed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    customer_ref: CustomerRef,
    items: Vec<OrderItem>,
}

/// An order to be placed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PlaceOrder)]
pub struct NewOrderBody {
    /// Whose order it is to be.
    #[schema(value_type = CustomerRef)]
    customer_ref: String,
    /// What is ordered, a line a product.
    #[schema(value_type = Vec<NewItemBody>, min_items = 1, max_items = 200)]
    order_items: Vec<Object<NewItemBody>>,
}

/// A line of an order to be placed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PlaceOrderLine)]
pub struct NewItemBody {
    /// What is ordered.
    #[schema(value_type = Uuid)]
    product_id: String,
    /// How many of it.
    #[schema(minimum = 1, maximum = 1_000_000)]
    #[serde(deserialize_with = "whole_number")]
    quantity: i64,
}

/// A number of any size; the nearest one where it is too large for the type, so that its range is what is told.
fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    let text = raw.get();
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let is_endless = || text.parse::<f64>().is_ok_and(f64::is_infinite);
    if is_whole || is_endless() {
        let nearest = if digits.len() < text.len() { i64::MIN } else { i64::MAX };
        return Ok(text.parse().unwrap_or(nearest));
    }
    // JSON knows one kind of number: 2.0 is 2.
    if let Some(number) = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0) {
        #[expect(clippy::cast_possible_truncation, reason = "it ends at the ends of an i64")]
        let whole = number as i64;
        return Ok(whole);
    }
    Err(D::Error::invalid_type(Unexpected::Other("another value"), &"a whole number"))
}

impl NewOrder {
    /// # Errors
    /// Every rule that is broken, by place.
    pub fn parse(body: &NewOrderBody) -> Result<Self, Vec<Violation>> {
        let mut violations = Vec::new();
        let customer_ref = CustomerRef::parse(&body.customer_ref);
        if customer_ref.is_none() {
            violations.push(Violation::new("/customerRef", CustomerRef::RULE));
        }
        if !(1..=MAX_LINES).contains(&body.order_items.len()) {
            violations.push(Violation::new("/orderItems", format!("There must be 1 to {MAX_LINES} lines.")));
        }
        let mut items = Vec::with_capacity(body.order_items.len());
        for (index, Object(item)) in body.order_items.iter().enumerate().take(MAX_LINES) {
            let product_id =
                Some(&item.product_id).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok());
            if product_id.is_none() {
                violations.push(Violation::new(format!("/orderItems/{index}/productId"), "This must be a UUID."));
            }
            let quantity = Some(item.quantity).filter(|n| QUANTITY.contains(n)).and_then(|n| i32::try_from(n).ok());
            if quantity.is_none() {
                let rule = format!("This must be from {} to {}.", QUANTITY.start(), QUANTITY.end());
                violations.push(Violation::new(format!("/orderItems/{index}/quantity"), rule));
            }
            items.extend(product_id.zip(quantity).map(|(product_id, quantity)| OrderItem { product_id, quantity }));
        }
        match customer_ref {
            Some(customer_ref) if violations.is_empty() => Ok(Self { customer_ref, items }),
            _ => Err(violations),
        }
    }

    #[must_use]
    pub fn customer_ref(&self) -> &CustomerRef {
        &self.customer_ref
    }

    #[must_use]
    pub fn items(&self) -> &[OrderItem] {
        &self.items
    }

    /// The order it became.
    #[must_use]
    pub fn placed(self, order_ref: OrderRef, placed_at: OffsetDateTime) -> Order {
        Order {
            summary: OrderSummary {
                order_ref,
                customer_ref: self.customer_ref.as_str().to_owned(),
                number_of_items: self.items.len(),
                status_name: "New".into(),
                placed_at,
            },
            order_items: self.items,
        }
    }
}

/// An order without its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderSummary {
    /// The name of the order.
    pub order_ref: OrderRef,
    /// Whose order it is.
    #[schema(value_type = CustomerRef)]
    pub customer_ref: String,
    /// How many lines it has.
    #[schema(minimum = 1, maximum = 200)]
    pub number_of_items: usize,
    /// How far it has come.
    #[schema(value_type = Status)]
    pub status_name: String,
    /// When it was placed, by the clock of the database.
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
}

/// An order with its lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    #[serde(flatten)]
    pub summary: OrderSummary,
    /// Its lines.
    #[schema(min_items = 1, max_items = 200)]
    pub order_items: Vec<OrderItem>,
}

/// One order with its lines; where `only` is given, an order of this customer.
///
/// # Errors
/// The database's.
pub async fn find(pool: &Pool, order_ref: OrderRef, only: Option<&CustomerRef>) -> Result<Option<Order>, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        SELECT customer_ref, status, placed_at, product_ids, quantities FROM orders
        WHERE order_id = $1 AND ($2::text IS NULL OR customer_ref = $2)
        "#,
        order_ref.number(),
        only.map(CustomerRef::as_str)
    );
    Ok(row.fetch_optional(pool).await?.map(|row| {
        let lines = row.product_ids.into_iter().zip(row.quantities);
        Order {
            summary: OrderSummary {
                order_ref,
                customer_ref: row.customer_ref,
                number_of_items: lines.len(),
                status_name: row.status,
                placed_at: row.placed_at,
            },
            order_items: lines.map(|(product_id, quantity)| OrderItem { product_id, quantity }).collect(),
        }
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_order_has_one_name() {
        assert_eq!(OrderRef::parse("os000042-ord").map(OrderRef::number), Some(42));
        assert_eq!(OrderRef::parse("OS1234567-ORD").map(OrderRef::number), Some(1_234_567));
        for other in ["OS0000042-ORD", "OS42-ORD", "OS000000-ORD", "OS+00042-ORD", "OS-00042-ORD", "OSx-ORD", ""] {
            assert_eq!(OrderRef::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_reference_is_read_as_it_is_written(number in 1..i64::MAX) {
            let order_ref = OrderRef::from_number(number);
            prop_assert_eq!(OrderRef::parse(&order_ref.to_string()), Some(order_ref));
            prop_assert_eq!(OrderRef::parse(&order_ref.to_string().to_lowercase()), Some(order_ref));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".*") {
            std::hint::black_box(OrderRef::parse(&text));
        }
    }
}

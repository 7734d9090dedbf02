//! A customer is forgotten: in all of their orders a pseudonym takes the place of the reference. Numbers, lines and times
//! stay, and so do the figures. Nothing keeps which pseudonym belonged to whom.

use serde::Serialize;
use shared::{
    contract::customer::CustomerRef,
    operators::audit::{Action, Author},
    runtime::database::Pool,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{audit, order::PlaceInOrders};

/// Orders of one transaction: some 50 ms. Whoever changes one of them waits no longer than that.
const PAGE: i64 = 1000;

/// How many orders have a pseudonym now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Erased {
    pub orders: u64,
}

/// Puts a pseudonym, one for the whole call, into all orders of a customer. Where it fails in the middle a part is done,
/// and the next call does the rest under another pseudonym. After each page `tell` hears of how many it has been by now.
///
/// # Errors
/// The database's.
pub async fn erase(
    pool: &Pool,
    customer: &CustomerRef,
    author: &Author,
    reason: &str,
    mut tell: impl FnMut(u64),
) -> Result<Erased, sqlx::Error> {
    // Drawn, not derived: what is derived from a reference can be found again by trying references.
    let pseudonym = format!("erased-{}", Uuid::now_v7());
    let mut erased = Erased::default();
    // Twice: an order that was being placed meanwhile has a time of before.
    for _ in 0..2 {
        let mut after = PlaceInOrders::BEGINNING;
        loop {
            let mut transaction = pool.begin().await?;
            let page = page(&mut transaction, customer, &pseudonym, after).await?;
            let Some(last) = page.first() else {
                transaction.rollback().await?;
                break;
            };
            if erased.orders == 0 {
                let subject = std::slice::from_ref(&pseudonym);
                audit::record(&mut transaction, author, Action::CustomerErased, subject, Some(reason)).await?;
            }
            transaction.commit().await?;
            erased.orders += page.len() as u64;
            tell(erased.orders);
            after = *last;
        }
    }
    Ok(erased)
}

/// Puts the pseudonym into the next orders behind a place; where these stand, the last one first.
async fn page(
    transaction: &mut sqlx::PgConnection,
    customer: &CustomerRef,
    pseudonym: &str,
    after: PlaceInOrders,
) -> Result<Vec<PlaceInOrders>, sqlx::Error> {
    let rows = sqlx::query_as!(
        PlaceInOrders,
        r#"
        WITH erased AS (
            UPDATE orders SET customer_ref = $2
            WHERE order_id = ANY (ARRAY(
                -- Behind the page before: the index is full of what that has left.
                SELECT order_id FROM orders WHERE customer_ref = $1 AND (placed_at, order_id) > ($3, $4)
                ORDER BY placed_at, order_id LIMIT $5 FOR UPDATE
            ))
            RETURNING order_id, placed_at
        ), forgotten AS (
            -- Whoever guesses the reference could prove it by the fingerprint of the request. The key stays: a repeat
            -- must not become another order.
            UPDATE idempotency_keys k SET fingerprint = sha256(gen_random_uuid()::text::bytea)
            FROM erased e WHERE k.placed_at = e.placed_at AND k.order_id = e.order_id
        )
        SELECT order_id, placed_at FROM erased ORDER BY placed_at DESC, order_id DESC
        "#,
        customer.as_str(),
        pseudonym,
        after.placed_at,
        after.order_id,
        PAGE
    );
    rows.fetch_all(transaction).await
}

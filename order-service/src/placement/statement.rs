//! The placement statement: a batch of orders, their lines and their messages.

use std::{collections::HashMap, time::Duration};

use fail::fail_point;
use shared::database::{Failure, within};
use sqlx::{PgPool, postgres::PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Accepted;
use crate::{
    instance::{InstanceId, NOBODY},
    outbox::Message,
};

/// After this long the connection is given up. The statement may still be carried out.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A batch as the arrays that the statement takes apart, a place in them being an order.
#[derive(Debug, Default)]
pub(super) struct Columns {
    message_refs: Vec<Uuid>,
    customer_refs: Vec<String>,
    owners: Vec<i64>,
    traceparents: Vec<Option<String>>,
    tracestates: Vec<Option<String>>,
    // One entry a line; `orders` says which order it is of, counted from 1.
    orders: Vec<i32>,
    line_numbers: Vec<i16>,
    product_ids: Vec<Uuid>,
    quantities: Vec<i32>,
}

impl Columns {
    pub(super) fn of(batch: &[Accepted], owner: InstanceId) -> Self {
        let mut columns = Self::default();
        for (one, order) in batch.iter().zip(1..) {
            columns.message_refs.push(one.message_ref);
            columns.customer_refs.push(one.order.customer_ref().as_str().to_owned());
            columns.owners.push(if one.slot.is_some() { owner } else { NOBODY }.number());
            columns.traceparents.push(one.trace.parent.clone());
            columns.tracestates.push(one.trace.state.clone());
            for (item, line_number) in one.order.items().iter().zip(1..) {
                columns.orders.push(order);
                columns.line_numbers.push(line_number);
                columns.product_ids.push(item.product_id);
                columns.quantities.push(item.quantity);
            }
        }
        columns
    }
}

/// What the statement made of one order.
#[derive(Debug)]
pub(super) struct Placed {
    pub order_id: i64,
    pub placed_at: OffsetDateTime,
    pub owner: InstanceId,
    pub message: Message,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Attempt {
    /// In the order of the batch.
    Placed(Vec<Placed>),
    /// There was no connection: nothing was placed by this attempt.
    NotSent(sqlx::Error),
    /// After an outage nobody knows whether the batch was placed.
    Failed(sqlx::Error),
}

/// Places the batch. `again`: an earlier attempt may have placed it already.
pub(super) async fn attempt(pool: &PgPool, batch: &Columns, again: bool) -> Attempt {
    let mut connection = match pool.acquire().await {
        Ok(connection) => connection,
        Err(error) => return Attempt::NotSent(error),
    };
    let placing = async {
        let mut rows = place(&mut connection, batch).await?;
        if again {
            rows.extend(placed_before(&mut connection, batch).await?);
        }
        Ok(rows)
    };
    let rows = within(ANSWER_WITHIN, placing).await.and_then(|rows| {
        fail_point!("placement::answer_lost", |_| Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        Ok(rows)
    });
    match rows {
        Ok(rows) => in_order(rows, batch).map_or_else(Attempt::Failed, Attempt::Placed),
        Err(error) => {
            if Failure::of(&error) == Failure::Outage {
                // An answer that is still under way would meet the connection's next user.
                drop(connection.detach());
            }
            Attempt::Failed(error)
        }
    }
}

struct Row {
    message_ref: Uuid,
    order_id: i64,
    placed_at: OffsetDateTime,
    owner: i64,
    key: String,
    value: String,
    headers: Vec<String>,
}

/// `fetch_all` returns only when the server has said that it is ready for the next statement, which
/// it says after the commit. A single row would be returned before.
async fn place(connection: &mut PgConnection, batch: &Columns) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        WITH incoming AS (
            SELECT nextval('order_number') AS order_id, o.*
            FROM UNNEST($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[])
                WITH ORDINALITY AS o (message_ref, customer_ref, owner, traceparent, tracestate, place)
        ),
        lines AS (
            SELECT * FROM UNNEST($6::integer[], $7::smallint[], $8::uuid[], $9::integer[])
                AS l (place, line_number, product_id, quantity)
        ),
        moment AS (
            SELECT now() AS placed_at, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS text
        ),
        announced AS (
            INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, owner, key, value, headers)
            SELECT message_ref, order_id, 'ORDER_CREATED', moment.placed_at, owner, order_ref(order_id),
                -- Nothing in it comes from the caller, so nothing needs escaping.
                format('{"messageRef":"%s","activityTypeCode":"ORDER_CREATED","activityAt":"%s","orderRef":"%s","orderVersion":1}',
                    message_ref, moment.text, order_ref(order_id)),
                ARRAY['ce_specversion', '1.0', 'ce_id', message_ref::text, 'ce_type', 'summarisation.ORDER_CREATED.v1',
                    'ce_source', '/order-service', 'ce_time', moment.text, 'content-type', 'application/json']
                || CASE WHEN traceparent IS NULL THEN '{}' ELSE ARRAY['traceparent', traceparent] END
                || CASE WHEN tracestate IS NULL THEN '{}' ELSE ARRAY['tracestate', tracestate] END
            FROM incoming, moment
            -- Waits for an earlier attempt of unknown outcome, and leaves its rows as they are.
            ON CONFLICT (message_ref) DO NOTHING
            RETURNING message_ref, order_id, placed_at, owner, key, value, headers
        ),
        ordered AS (
            INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at)
            SELECT a.order_id, i.customer_ref, (SELECT count(*) FROM lines l WHERE l.place = i.place), a.placed_at
            FROM announced a JOIN incoming i USING (message_ref)
        ),
        itemised AS (
            INSERT INTO order_items (order_id, line_number, product_id, quantity)
            SELECT a.order_id, l.line_number, l.product_id, l.quantity
            FROM announced a JOIN incoming i USING (message_ref) JOIN lines l USING (place)
        )
        SELECT message_ref, order_id, placed_at, owner, key, value, headers FROM announced
        "#,
        &batch.message_refs,
        &batch.customer_refs,
        &batch.owners,
        &batch.traceparents as &[Option<String>],
        &batch.tracestates as &[Option<String>],
        &batch.orders,
        &batch.line_numbers,
        &batch.product_ids,
        &batch.quantities
    )
    .fetch_all(connection)
    .await
}

/// The rows of the batch that an earlier attempt has placed. Asked after [`place`], which has
/// waited for that attempt: what is not there now never will be.
async fn placed_before(connection: &mut PgConnection, batch: &Columns) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT message_ref, order_id, placed_at, owner, key, value, headers FROM outbox WHERE message_ref = ANY($1)",
        &batch.message_refs
    )
    .fetch_all(connection)
    .await
}

fn in_order(rows: Vec<Row>, batch: &Columns) -> Result<Vec<Placed>, sqlx::Error> {
    let mut by_ref: HashMap<_, _> = rows.into_iter().map(|row| (row.message_ref, row)).collect();
    let placed = batch.message_refs.iter().map(|message_ref| by_ref.remove(message_ref).map(Placed::from));
    placed.collect::<Option<_>>().ok_or(sqlx::Error::RowNotFound)
}

impl From<Row> for Placed {
    fn from(row: Row) -> Self {
        Self {
            order_id: row.order_id,
            placed_at: row.placed_at,
            owner: row.owner.into(),
            message: Message {
                message_ref: row.message_ref,
                key: row.key,
                value: row.value,
                headers: row.headers,
                failures: 0,
            },
        }
    }
}

//! The placement statement: a batch of orders, their lines, their messages and their keys.

use std::{collections::HashMap, time::Duration};

use fail::fail_point;
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Accepted;
use crate::{idempotency::fingerprint, instance::InstanceId, outbox::Message, outcome::Repeatable};

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
    // One entry a key, of the order that `keyed_orders` says.
    keyed_orders: Vec<i32>,
    keys: Vec<Vec<u8>>,
    fingerprints: Vec<Vec<u8>>,
    locks: Vec<i64>,
    /// In seconds.
    keys_kept_for: f64,
}

impl Columns {
    pub(super) fn of(batch: &[Accepted], keys_kept_for: Duration) -> Self {
        let mut columns = Self { keys_kept_for: keys_kept_for.as_secs_f64(), ..Self::default() };
        for (one, order) in batch.iter().zip(1..) {
            columns.message_refs.push(one.announcement.message_ref);
            columns.customer_refs.push(one.order.customer_ref().as_str().to_owned());
            columns.owners.push(one.announcement.owner.number());
            columns.traceparents.push(one.announcement.trace.parent.clone());
            columns.tracestates.push(one.announcement.trace.state.clone());
            for (item, line_number) in one.order.items().iter().zip(1..) {
                columns.orders.push(order);
                columns.line_numbers.push(line_number);
                columns.product_ids.push(item.product_id);
                columns.quantities.push(item.quantity);
            }
            if let Some(key) = &one.key {
                columns.keyed_orders.push(order);
                columns.keys.push(key.as_bytes().to_vec());
                columns.fingerprints.push(fingerprint(&one.order).to_vec());
                columns.locks.push(key.lock());
            }
        }
        columns
    }
}

/// What became of one order.
#[derive(Debug)]
pub(super) enum Fate {
    Placed {
        order_id: i64,
        placed_at: OffsetDateTime,
        owner: InstanceId,
        message: Message,
    },
    /// The same request was placed under its key before.
    Remembered {
        order_id: i64,
        placed_at: OffsetDateTime,
    },
    /// Another request was placed under its key before.
    OfAnotherRequest,
    /// Somebody is placing under its key: not placed by this attempt.
    KeyInUse,
}

impl Repeatable for Columns {
    /// In the order of the batch.
    type Done = Vec<Fate>;

    async fn attempt(&self, connection: &mut PgConnection, again: bool) -> Result<Self::Done, sqlx::Error> {
        fail_point!("placement::before", |_| std::process::abort());
        let mut rows = place(connection, self).await?;
        let mut remembered = Vec::new();
        if rows.len() < self.message_refs.len() {
            // In this order: whoever sees the key of an earlier attempt of this batch then sees its
            // orders too, and does not take them for another request's.
            remembered = self::remembered(connection, self).await?;
            if again {
                rows.extend(placed_before(connection, self).await?);
            }
        }
        fail_point!("placement::answer_lost", |_| Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        self.fates(rows, remembered)
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
        keyed AS (
            SELECT * FROM UNNEST($10::integer[], $11::bytea[], $12::bytea[], $13::bigint[])
                AS k (place, caller_key, fingerprint, lock)
        ),
        taken AS (
            INSERT INTO idempotency_keys AS k (caller_key, fingerprint, order_id, placed_at)
            SELECT caller_key, fingerprint, order_id, now() FROM keyed JOIN incoming USING (place)
            -- Held to the end of the transaction. Nobody inserts a key without its lock, so nobody
            -- ever waits here for the end of another's.
            WHERE pg_try_advisory_xact_lock(lock)
            ON CONFLICT (caller_key) DO UPDATE
                SET fingerprint = excluded.fingerprint, order_id = excluded.order_id, placed_at = excluded.placed_at
                -- One that has expired is as good as purged.
                WHERE k.placed_at <= now() - make_interval(secs => $14)
            RETURNING order_id
        ),
        announced AS (
            INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, owner, key, value, headers)
            SELECT message_ref, order_id, 'ORDER_CREATED', now(), owner, a.key, a.value, a.headers
            FROM incoming, announcement(message_ref, 'ORDER_CREATED', now(), order_id, 1, traceparent, tracestate) AS a
            WHERE place NOT IN (SELECT place FROM keyed) OR order_id IN (SELECT order_id FROM taken)
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
        &batch.quantities,
        &batch.keyed_orders,
        &batch.keys,
        &batch.fingerprints,
        &batch.locks,
        batch.keys_kept_for
    )
    .fetch_all(connection)
    .await
}

struct Remembered {
    caller_key: Vec<u8>,
    fingerprint: Vec<u8>,
    order_id: i64,
    placed_at: OffsetDateTime,
}

/// What was placed under the batch's keys.
async fn remembered(connection: &mut PgConnection, batch: &Columns) -> Result<Vec<Remembered>, sqlx::Error> {
    sqlx::query_as!(
        Remembered,
        r#"
        SELECT caller_key, fingerprint, order_id, placed_at FROM idempotency_keys
        WHERE caller_key = ANY($1) AND placed_at > now() - make_interval(secs => $2)
        "#,
        &batch.keys,
        batch.keys_kept_for
    )
    .fetch_all(connection)
    .await
}

/// The rows of the batch that an earlier attempt has placed. Asked after [`place`], which has
/// waited for that attempt, but for orders whose key it holds: what is not there now never will be.
async fn placed_before(connection: &mut PgConnection, batch: &Columns) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT message_ref, order_id, placed_at, owner, key, value, headers FROM outbox WHERE message_ref = ANY($1)",
        &batch.message_refs
    )
    .fetch_all(connection)
    .await
}

impl Columns {
    fn fates(&self, rows: Vec<Row>, remembered: Vec<Remembered>) -> Result<Vec<Fate>, sqlx::Error> {
        let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.message_ref, row)).collect();
        let remembered: HashMap<_, _> = remembered.iter().map(|row| (&row.caller_key, row)).collect();
        let keys = self.keys.iter().zip(&self.fingerprints);
        let keys: HashMap<_, _> = self.keyed_orders.iter().zip(keys).collect();
        let fate = |(message_ref, order): (&Uuid, i32)| {
            if let Some(row) = rows.remove(message_ref) {
                return Ok(Fate::from(row));
            }
            // Without a key nothing keeps an order from being placed.
            let (key, fingerprint) = keys.get(&order).ok_or(sqlx::Error::RowNotFound)?;
            Ok(match remembered.get(key) {
                Some(row) if row.fingerprint == **fingerprint => {
                    Fate::Remembered { order_id: row.order_id, placed_at: row.placed_at }
                }
                Some(_) => Fate::OfAnotherRequest,
                None => Fate::KeyInUse,
            })
        };
        self.message_refs.iter().zip(1..).map(fate).collect()
    }
}

impl From<Row> for Fate {
    fn from(row: Row) -> Self {
        let Row { message_ref, order_id, placed_at, owner, key, value, headers } = row;
        let message = Message { message_ref, key, value, headers, failures: 0 };
        Self::Placed { order_id, placed_at, owner: owner.into(), message }
    }
}

//! The placement statement: a batch of orders, their messages and their keys.

use std::{collections::HashMap, time::Duration};

use fail::fail_point;
use outbox::{
    instance,
    instance_id::InstanceId,
    outcome::{Earlier, Repeatable, committed_before},
    queue::Queue,
};
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::accepted::Accepted;
use crate::{cell::Cell, format::FORMAT, idempotency::fingerprint};

/// A batch, and the arrays that the statement takes apart.
#[derive(Debug)]
pub(super) struct Statement {
    batch: Vec<Accepted>,
    queue: Queue,
    log: InstanceId,
    columns: Columns,
}

/// A place in each array is an order.
#[derive(Debug, Default)]
struct Columns {
    message_refs: Vec<Uuid>,
    customer_refs: Vec<String>,
    seqs: Vec<i64>,
    traceparents: Vec<Option<String>>,
    tracestates: Vec<Option<String>>,
    // Where the order's lines stand in the next two, counted from 1.
    first_lines: Vec<i32>,
    last_lines: Vec<i32>,
    product_ids: Vec<Uuid>,
    quantities: Vec<i32>,
    // One entry a key, of the order that `keyed_orders` says.
    keyed_orders: Vec<i32>,
    keys: Vec<Vec<u8>>,
    fingerprints: Vec<Vec<u8>>,
    locks: Vec<i64>,
    /// In seconds.
    keys_kept_for: f64,
    /// The orders' time is this or later, see [`outbox::log::own`].
    not_before: Option<OffsetDateTime>,
    /// See [`Cell::numbering`].
    numbering: (i64, i64),
}

impl Statement {
    /// All of a batch have drawn their places from one log.
    pub(super) fn of(batch: Vec<Accepted>, (cell, keys_kept_for): (Cell, Duration), queue: Queue) -> Self {
        let mut columns =
            Columns { keys_kept_for: keys_kept_for.as_secs_f64(), numbering: cell.numbering(), ..Columns::default() };
        for (one, order) in batch.iter().zip(1..) {
            columns.message_refs.push(one.announcement.message_ref);
            columns.customer_refs.push(one.order.customer_ref().as_str().to_owned());
            columns.seqs.push(one.announcement.ticket.seq);
            columns.not_before = columns.not_before.max(Some(one.announcement.ticket.not_before));
            columns.traceparents.push(one.announcement.trace.parent.clone());
            columns.tracestates.push(one.announcement.trace.state.clone());
            let line = |count: usize| i32::try_from(count).expect("a batch has at most 1,000 orders of 200 lines");
            columns.first_lines.push(line(columns.product_ids.len() + 1));
            for item in one.order.items() {
                columns.product_ids.push(item.product_id);
                columns.quantities.push(item.quantity);
            }
            columns.last_lines.push(line(columns.product_ids.len()));
            if let Some(key) = &one.key {
                columns.keyed_orders.push(order);
                columns.keys.push(key.as_bytes().to_vec());
                columns.fingerprints.push(fingerprint(&one.order).to_vec());
                columns.locks.push(key.lock());
            }
        }
        let first = batch.first().expect("a batch has an order");
        Self { log: first.announcement.ticket.log.log.id, batch, queue, columns }
    }

    pub(super) fn into_batch(self) -> Vec<Accepted> {
        self.batch
    }
}

/// What became of one order.
#[derive(Debug)]
pub(super) enum PlacementResult {
    Placed {
        order_id: i64,
        log: i64,
        seq: i64,
        placed_at: OffsetDateTime,
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

impl Repeatable for Statement {
    /// In the order of the batch.
    type Done = Vec<PlacementResult>;

    async fn attempt(
        &self,
        connection: &mut PgConnection,
        earlier: Earlier,
    ) -> Result<Option<Self::Done>, sqlx::Error> {
        fail_point!("placement::before", |_| std::process::abort());
        let mut rows = place(connection, self.log, &self.columns).await?;
        fail_point!("placement::placed");
        let mut remembered = Vec::new();
        if rows.len() < self.batch.len() {
            // All of them stand behind one fence: where some are placed the others lack something else.
            if rows.is_empty() && instance::has_ended(connection, self.log).await.map_err(committed_before)? {
                return Ok(None);
            }
            // In this order: whoever sees the key of an earlier attempt of this batch then sees its
            // orders too, and does not take them for another request's.
            remembered = self::remembered(connection, &self.columns).await.map_err(committed_before)?;
            if earlier == Earlier::MayHaveDone {
                rows.extend(placed_before(connection, &self.columns).await.map_err(committed_before)?);
            }
        }
        fail_point!("placement::answer_lost", |_| Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        self.columns.results(rows, remembered).map(Some)
    }

    async fn renew(&mut self) {
        self.queue.instance().replaced(self.log).await;
        let log = self.queue.log();
        self.log = log.log.id;
        for (one, seq) in self.batch.iter_mut().zip(&mut self.columns.seqs) {
            one.announcement.renew(&log, &self.queue);
            *seq = one.announcement.ticket.seq;
            self.columns.not_before = self.columns.not_before.max(Some(one.announcement.ticket.not_before));
        }
    }
}

struct Row {
    message_ref: Uuid,
    log: i64,
    seq: i64,
    order_id: i64,
    activity_at: OffsetDateTime,
}

/// `fetch_all` returns only when the server has said that it is ready for the next statement, which
/// it says after the commit. A single row would be returned before.
async fn place(connection: &mut PgConnection, log: InstanceId, batch: &Columns) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        WITH fence AS MATERIALIZED (
            -- Everything below comes from here: whoever adopts the log of an ended identity has to know all that
            -- is in it, and an older snapshot would not see the end.
            SELECT FROM instances
            WHERE instance_id = $1 AND ended_at IS NULL AND current_setting('transaction_isolation') = 'read committed'
        ),
        keyed AS MATERIALIZED (
            SELECT place, caller_key, fingerprint
            FROM fence CROSS JOIN UNNEST($11::integer[], $12::bytea[], $13::bytea[], $14::bigint[])
                AS k (place, caller_key, fingerprint, lock)
            -- Held to the end of the transaction. Nobody inserts a key without its lock, so nobody
            -- ever waits below for the end of another's.
            -- Those of another installation, in another schema of this database, are others.
            WHERE pg_try_advisory_xact_lock(lock # 'idempotency_keys'::regclass::oid::bigint)
                -- A subselect, which cannot become a join that reads all keys. What is committed just now is met below.
                AND (SELECT true FROM idempotency_keys AS known WHERE known.caller_key = k.caller_key
                    AND known.placed_at > now() - make_interval(secs => $15)) IS NULL
        ),
        incoming AS (
            -- A number is drawn when its key is free: whoever waits for one comes again and again.
            SELECT nextval('order_number') * $18 + $19 AS order_id, o.*
            FROM fence CROSS JOIN UNNEST($2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::integer[],
                $8::integer[]) WITH ORDINALITY
                AS o (message_ref, customer_ref, seq, traceparent, tracestate, first_line, last_line, place)
            WHERE place <> ALL ($11) OR place IN (SELECT place FROM keyed)
        ),
        taken AS (
            INSERT INTO idempotency_keys AS k (caller_key, fingerprint, order_id, placed_at)
            SELECT caller_key, fingerprint, order_id, greatest(now(), $17) FROM keyed JOIN incoming USING (place)
            ON CONFLICT (caller_key) DO UPDATE
                SET fingerprint = excluded.fingerprint, order_id = excluded.order_id, placed_at = excluded.placed_at
                -- One that has expired is as good as purged.
                WHERE k.placed_at <= now() - make_interval(secs => $15)
            RETURNING order_id
        ),
        announced AS (
            INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at,
                format, traceparent, tracestate)
            SELECT message_ref, $1, seq, order_id, 1, 'ORDER_CREATED', greatest(now(), $17), $16, traceparent, tracestate
            FROM incoming
            WHERE place <> ALL ($11) OR order_id IN (SELECT order_id FROM taken)
            -- Waits for an earlier attempt of unknown outcome, and leaves its rows as they are.
            ON CONFLICT (message_ref) DO NOTHING
            RETURNING message_ref, instance, seq, order_id, activity_at
        ),
        ordered AS (
            INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at, product_ids, quantities)
            SELECT a.order_id, i.customer_ref, i.last_line - i.first_line + 1, a.activity_at,
                ($9::uuid[])[i.first_line : i.last_line], ($10::integer[])[i.first_line : i.last_line]
            FROM announced a JOIN incoming i USING (message_ref)
        )
        SELECT message_ref, instance AS log, seq, order_id, activity_at FROM announced
        "#,
        log.number(),
        &batch.message_refs,
        &batch.customer_refs,
        &batch.seqs,
        &batch.traceparents as &[Option<String>],
        &batch.tracestates as &[Option<String>],
        &batch.first_lines,
        &batch.last_lines,
        &batch.product_ids,
        &batch.quantities,
        &batch.keyed_orders,
        &batch.keys,
        &batch.fingerprints,
        &batch.locks,
        batch.keys_kept_for,
        FORMAT,
        batch.not_before,
        batch.numbering.0,
        batch.numbering.1
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
        "SELECT message_ref, instance AS log, seq, order_id, activity_at FROM outbox WHERE message_ref = ANY($1)",
        &batch.message_refs
    )
    .fetch_all(connection)
    .await
}

impl Columns {
    fn results(&self, rows: Vec<Row>, remembered: Vec<Remembered>) -> Result<Vec<PlacementResult>, sqlx::Error> {
        let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.message_ref, row)).collect();
        let remembered: HashMap<_, _> = remembered.iter().map(|row| (&row.caller_key, row)).collect();
        let keys = self.keys.iter().zip(&self.fingerprints);
        let keys: HashMap<_, _> = self.keyed_orders.iter().zip(keys).collect();
        let result = |(message_ref, order): (&Uuid, i32)| {
            if let Some(row) = rows.remove(message_ref) {
                return Ok(PlacementResult::from(row));
            }
            // Without a key nothing keeps an order from being placed.
            let (key, fingerprint) = keys.get(&order).ok_or(sqlx::Error::RowNotFound)?;
            Ok(match remembered.get(key) {
                Some(row) if row.fingerprint == **fingerprint => {
                    PlacementResult::Remembered { order_id: row.order_id, placed_at: row.placed_at }
                }
                Some(_) => PlacementResult::OfAnotherRequest,
                None => PlacementResult::KeyInUse,
            })
        };
        self.message_refs.iter().zip(1..).map(result).collect()
    }
}

impl From<Row> for PlacementResult {
    fn from(row: Row) -> Self {
        let Row { log, seq, order_id, activity_at, .. } = row;
        Self::Placed { order_id, log, seq, placed_at: activity_at }
    }
}

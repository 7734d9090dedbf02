//! The tables of messages: the truth about what was and what is to be sent.
//!
//! A message is one row, written in the transaction of what it tells of, and never changed.
//! What the broker answered is written beside it: acknowledgements as facts, true whoever states them
//! and however often, and a row for each message that was refused. Who may send a message follows
//! from whose log it stands in, see [`crate::log`].

mod published;
mod rejected;

pub use published::{Published, SettledTo, mark_published};
pub use rejected::{AfterRejection, Rejected, has_retries, hold_retries, record_rejections, set_aside};
use shared::runtime::database::Pool;
use shared::runtime::traces::TraceContext;
use sqlx::{Executor, Postgres};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    instance_id::InstanceId,
    message::{Content, Message},
};

/// Places of a log whose acknowledgements stand together in `published`.
pub const BLOCK: i64 = 4096;

/// A message as the tables have it.
pub(crate) struct Row {
    pub message_ref: Uuid,
    pub instance: i64,
    pub seq: i64,
    pub order_id: i64,
    pub order_version: i32,
    pub activity_type_code: String,
    pub activity_at: OffsetDateTime,
    pub format: i16,
    pub key: Option<String>,
    pub fields: Option<String>,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
    pub failures: i32,
}

impl From<Row> for Message {
    fn from(row: Row) -> Self {
        Self {
            message_ref: row.message_ref,
            log: row.instance.into(),
            seq: row.seq,
            content: match row.key.zip(row.fields) {
                Some((key, fields)) => Content::Given { key, fields },
                None => Content::Thing { number: row.order_id, version: row.order_version },
            },
            activity_type_code: row.activity_type_code,
            activity_at: row.activity_at,
            format: row.format,
            // As it stands: the bytes of the message are made of it.
            trace: TraceContext { parent: row.traceparent, state: row.tracestate },
            failures: row.failures,
        }
    }
}

/// Messages of a log from `from` on and before `before`, in the order of their places.
///
/// # Errors
/// The database's.
pub async fn read_range(
    pool: &Pool,
    log: InstanceId,
    from: i64,
    before: i64,
    limit: i64,
) -> Result<Vec<Message>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
            key, fields, traceparent, tracestate, 0 AS "failures!"
        FROM outbox WHERE instance = $1 AND seq >= $2 AND seq < $3
        ORDER BY instance, seq LIMIT $4
        "#,
        log.number(),
        from,
        before,
        limit
    );
    Ok(rows.fetch_all(pool).await?.into_iter().map(Message::from).collect())
}

/// Messages of a log at these places, and the places of those that are the log's no more: they have failed, or an operator
/// has decided what becomes of them.
///
/// # Errors
/// The database's.
pub async fn read_places(pool: &Pool, log: InstanceId, seqs: &[i64]) -> Result<(Vec<Message>, Vec<i64>), sqlx::Error> {
    let left = sqlx::query_scalar!(
        "SELECT seq FROM rejected_messages WHERE instance = $1 AND seq = ANY ($2) AND state <> 'waiting'",
        log.number(),
        seqs
    );
    let left = left.fetch_all(pool).await?;
    let rows = sqlx::query_as!(
        Row,
        r#"
        SELECT m.message_ref, m.instance, m.seq, m.order_id, m.order_version, m.activity_type_code, m.activity_at,
            m.format, m.key, m.fields, m.traceparent, m.tracestate, coalesce(r.failures, 0) AS "failures!"
        FROM outbox m LEFT JOIN rejected_messages r USING (message_ref)
        WHERE m.instance = $1 AND m.seq = ANY ($2)
        "#,
        log.number(),
        seqs
    );
    let rows = rows.fetch_all(pool).await?.into_iter().map(Message::from);
    Ok((rows.filter(|message| !left.contains(&message.seq)).collect(), left))
}

/// What a version of a thing waits for whose turn it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the list.
    pub place: usize,
    /// Nothing but messages that wait for an operator, or are another try of such ones.
    pub for_operator: bool,
}

/// Which of these things' versions have an earlier one whose message is neither acknowledged nor given up.
///
/// # Errors
/// The database's.
pub async fn waiting_their_turn(pool: &Pool, things: &[(i64, i32)]) -> Result<Vec<Waiting>, sqlx::Error> {
    let (numbers, versions): (Vec<_>, Vec<_>) = things.iter().copied().unzip();
    let waiting = sqlx::query!(
        r#"
        SELECT w.place - 1 AS "place!", NOT earlier.is_unsent AS "for_operator!"
        FROM UNNEST($1::bigint[], $2::integer[]) WITH ORDINALITY AS w (number, version, place),
            LATERAL (SELECT
                EXISTS (
                    SELECT FROM rejected_messages r
                    WHERE r.order_id = w.number AND r.order_version < w.version AND r.state IN ('failed', 'retrying')
                ) AS is_refused,
                EXISTS (
                    SELECT FROM rejected_messages r
                    WHERE r.order_id = w.number AND r.order_version < w.version AND r.state = 'waiting'
                ) OR EXISTS (
                    SELECT FROM outbox m
                    WHERE m.message_ref = ANY (messages_of_order(w.number)) AND m.order_version < w.version
                        AND NOT EXISTS (SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref)
                        -- By the index for each of them: a join would read every acknowledgement there is.
                        AND (
                            SELECT true FROM published p
                            WHERE p.instance = m.instance AND p.block = m.seq / 4096
                                AND (m.seq % 4096)::smallint = ANY (p.seqs)
                            LIMIT 1) IS NULL
                ) AS is_unsent
            ) AS earlier
        WHERE earlier.is_refused OR earlier.is_unsent
        "#,
        &numbers,
        &versions
    );
    let waiting = waiting.fetch_all(pool).await?.into_iter();
    Ok(waiting
        .filter_map(|row| Some(Waiting { place: usize::try_from(row.place).ok()?, for_operator: row.for_operator }))
        .collect())
}

/// What is known of a place of a log beside the message itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The broker has it, or has refused it for good: it is not this log's any more.
    Settled,
    /// The broker has refused it so often, and it is to be tried again.
    Refused(i32),
}

/// The places from `from` to `to` of which the broker's answer is known.
///
/// # Errors
/// The database's.
pub async fn answered(pool: &Pool, log: InstanceId, from: i64, to: i64) -> Result<Vec<(i64, Answered)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        SELECT block * 4096 + seq AS "seq!", NULL::integer AS failures
        FROM published, UNNEST(seqs) AS seq
        WHERE instance = $1 AND block BETWEEN $2::bigint / 4096 AND $3::bigint / 4096
        UNION ALL
        SELECT seq, CASE state WHEN 'waiting' THEN failures END
        FROM rejected_messages WHERE instance = $1 AND seq BETWEEN $2 AND $3
        "#,
        log.number(),
        from,
        to
    );
    let known = |failures: Option<i32>| failures.map_or(Answered::Settled, Answered::Refused);
    Ok(rows.fetch_all(pool).await?.into_iter().map(|row| (row.seq, known(row.failures))).collect())
}

/// The database's time, and up to when there are partitions without a gap from today on.
///
/// # Errors
/// The database's.
pub async fn end_of_partitions(
    executor: impl Executor<'_, Database = Postgres>,
) -> Result<(OffsetDateTime, OffsetDateTime), sqlx::Error> {
    let found = sqlx::query!(
        r#"
        SELECT now() AS "now!", (
            SELECT min(day) FROM generate_series(0, 62) AS ahead (days),
                LATERAL (SELECT date_trunc('day', now(), 'UTC') + days * interval '24 hours') AS of_one (day)
            WHERE NOT EXISTS (
                SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = 'outbox'::regclass AND partition_day(relname) = day)
                OR NOT EXISTS (
                SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = 'published'::regclass AND partition_day(relname) = day)
        ) AS "end!"
        "#
    );
    found.fetch_one(executor).await.map(|found| (found.now, found.end))
}

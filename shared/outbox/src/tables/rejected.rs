//! Messages that the broker refused: how often, what becomes of them, and who sends those that an operator
//! wants sent again.

use shared::runtime::database::Pool;
use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::Row;
use crate::{instance_id::InstanceId, message::Message};

/// What becomes of a message that the broker refused.
#[derive(Clone, Debug)]
pub struct Rejected {
    pub message: Message,
    pub error: String,
    pub next: AfterRejection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRejection {
    /// Whoever sends it tries again.
    Waits,
    /// An operator's retry that nobody holds until this long from now.
    WaitsForHolder(Duration),
    /// At the threshold: stays as it is until an operator decides.
    Failed,
}

/// Records rejections, unless `by` has ended: then somebody else sends these messages, and nothing that
/// happened to them here counts. Whether it was recorded. `retries` tells which of them stand in no log
/// that `by` sends. Said again with the same `record` it changes nothing: since the first time somebody may have
/// retried and sent them.
///
/// # Errors
/// The database's.
pub async fn record_rejections(
    connection: &mut PgConnection,
    by: InstanceId,
    record: Uuid,
    rejected: &[Rejected],
    retries: &[bool],
) -> Result<bool, sqlx::Error> {
    let refs: Vec<_> = rejected.iter().map(|one| one.message.message_ref).collect();
    let logs: Vec<_> = rejected.iter().map(|one| one.message.log.number()).collect();
    let seqs: Vec<_> = rejected.iter().map(|one| one.message.seq).collect();
    let contents: Vec<_> = rejected.iter().map(|one| one.message.content.columns()).collect();
    let orders: Vec<_> = contents.iter().map(|one| one.0).collect();
    let versions: Vec<_> = contents.iter().map(|one| one.1).collect();
    let keys: Vec<_> = contents.iter().map(|one| one.2.map(str::to_owned)).collect();
    let fields: Vec<_> = contents.iter().map(|one| one.3.map(str::to_owned)).collect();
    let codes: Vec<_> = rejected.iter().map(|one| one.message.activity_type_code.clone()).collect();
    let times: Vec<_> = rejected.iter().map(|one| one.message.activity_at).collect();
    let formats: Vec<_> = rejected.iter().map(|one| one.message.format).collect();
    let parents: Vec<_> = rejected.iter().map(|one| one.message.trace.parent.clone()).collect();
    let states: Vec<_> = rejected.iter().map(|one| one.message.trace.state.clone()).collect();
    let failures: Vec<_> = rejected.iter().map(|one| one.message.failures).collect();
    let errors: Vec<_> = rejected.iter().map(|one| one.error.clone()).collect();
    let failed: Vec<_> = rejected.iter().map(|one| one.next == AfterRejection::Failed).collect();
    let pauses: Vec<_> = rejected
        .iter()
        .map(|one| match one.next {
            AfterRejection::WaitsForHolder(pause) => Some(pause.as_secs_f64()),
            AfterRejection::Waits | AfterRejection::Failed => None,
        })
        .collect();
    let is_recorded = sqlx::query_scalar!(
        r#"
        WITH living AS MATERIALIZED (
            SELECT FROM instances WHERE instance_id = $1 AND ended_at IS NULL
        ), recorded AS (
        INSERT INTO rejected_messages AS known (message_ref, instance, seq, order_id, order_version, activity_type_code,
            activity_at, format, key, fields, traceparent, tracestate, failures, last_error, state, holder, retry_at)
        SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format, key, fields,
            traceparent, tracestate, failures, error,
            CASE WHEN failed THEN 'failed' WHEN is_retry THEN 'retrying' ELSE 'waiting' END,
            CASE WHEN is_retry AND NOT failed AND pause IS NULL THEN $1::bigint END,
            now() + make_interval(secs => pause)
        FROM UNNEST($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::integer[], $7::text[], $8::timestamptz[],
            $9::smallint[], $10::text[], $11::text[], $12::integer[], $13::text[], $14::boolean[], $15::boolean[],
            $16::double precision[], $17::text[], $18::text[])
            AS d (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
                traceparent, tracestate, failures, error, failed, is_retry, pause, key, fields)
        WHERE EXISTS (SELECT FROM living)
            AND NOT EXISTS (SELECT FROM rejections said WHERE said.message_ref = d.message_ref AND said.record = $19)
        ON CONFLICT (message_ref) DO UPDATE SET failures = excluded.failures, last_error = excluded.last_error,
            state = excluded.state, holder = excluded.holder, retry_at = excluded.retry_at, rejected_at = now()
            -- The first time may end while this waits for its row.
            WHERE known.failures < excluded.failures AND known.state NOT IN ('failed', 'discarded')
        RETURNING message_ref, failures, last_error, state
        ), noted AS (
        INSERT INTO rejections (message_ref, instance, failures, error, is_failed, record)
        SELECT message_ref, $1, failures, last_error, state = 'failed', $19 FROM recorded
        )
        SELECT EXISTS (SELECT FROM living) AS "recorded!"
        "#,
        by.number(),
        &refs,
        &logs,
        &seqs,
        &orders,
        &versions,
        &codes,
        &times,
        &formats,
        &parents as &[Option<String>],
        &states as &[Option<String>],
        &failures,
        &errors,
        &failed,
        retries,
        &pauses as &[Option<f64>],
        &keys as &[Option<String>],
        &fields as &[Option<String>],
        record
    );
    is_recorded.fetch_one(connection).await
}

/// Lets messages that wait behind one which has failed leave their log, as those that an operator wants sent again: the
/// log would not be settled for as long as no operator decides. Whether `by` has not ended.
///
/// # Errors
/// The database's.
pub async fn set_aside(pool: &Pool, by: InstanceId, log: InstanceId, seqs: &[i64]) -> Result<bool, sqlx::Error> {
    let is_done = sqlx::query_scalar!(
        r#"
        WITH living AS MATERIALIZED (
            SELECT FROM instances WHERE instance_id = $1 AND ended_at IS NULL
        ), set_aside AS (
        INSERT INTO rejected_messages AS known (message_ref, instance, seq, order_id, order_version, activity_type_code,
            activity_at, format, key, fields, traceparent, tracestate, failures, state)
        SELECT message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format, key, fields,
            traceparent, tracestate, 0, 'retrying'
        FROM outbox WHERE instance = $2 AND seq = ANY ($3) AND EXISTS (SELECT FROM living)
        ON CONFLICT (message_ref) DO UPDATE SET state = excluded.state WHERE known.state = 'waiting'
        )
        SELECT EXISTS (SELECT FROM living) AS "is_done!"
        "#,
        by.number(),
        log.number(),
        seqs
    );
    is_done.fetch_one(pool).await
}

/// Whether an operator wants messages sent again that nobody living holds. `in_order`: and that have no earlier version
/// here.
///
/// # Errors
/// The database's.
pub async fn has_retries(pool: &Pool, in_order: bool) -> Result<bool, sqlx::Error> {
    let any = sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT FROM rejected_messages r WHERE state = 'retrying' AND (retry_at IS NULL OR retry_at <= now())
                AND NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = r.holder AND i.ended_at IS NULL)
                AND NOT ($1 AND EXISTS (
                    SELECT FROM rejected_messages earlier
                    WHERE earlier.order_id = r.order_id AND earlier.order_version < r.order_version
                        AND earlier.state <> 'discarded'))
        ) AS "any!"
        "#,
        in_order
    );
    any.fetch_one(pool).await
}

/// Takes a page of the messages that an operator wants sent again and nobody living holds; `in_order` as for
/// [`has_retries`].
///
/// # Errors
/// The database's. After [`shared::runtime::database::Failure::Outage`] nobody knows what `holder` holds.
pub async fn hold_retries(
    connection: &mut PgConnection,
    holder: InstanceId,
    limit: i64,
    in_order: bool,
) -> Result<Vec<Message>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        UPDATE rejected_messages SET holder = $1, retry_at = NULL
        WHERE message_ref = ANY (ARRAY(
            SELECT retry.message_ref FROM (
                SELECT message_ref, holder FROM rejected_messages r
                WHERE state = 'retrying' AND (retry_at IS NULL OR retry_at <= now())
                    AND NOT EXISTS (SELECT FROM instances i WHERE i.instance_id = r.holder AND i.ended_at IS NULL)
                    AND NOT ($3 AND EXISTS (
                        SELECT FROM rejected_messages earlier
                        WHERE earlier.order_id = r.order_id AND earlier.order_version < r.order_version
                            AND earlier.state <> 'discarded'))
                ORDER BY message_ref LIMIT $2
            ) AS seen JOIN rejected_messages retry USING (message_ref)
            -- Of a row that has changed since, this alone is asked again: NOT EXISTS is not.
            WHERE retry.state = 'retrying' AND retry.holder IS NOT DISTINCT FROM seen.holder
            FOR UPDATE OF retry SKIP LOCKED
        ))
            AND EXISTS (SELECT FROM instances WHERE instance_id = $1 AND ended_at IS NULL)
        RETURNING message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format,
            key, fields, traceparent, tracestate, failures
        "#,
        holder.number(),
        limit,
        in_order
    );
    Ok(rows.fetch_all(connection).await?.into_iter().map(Message::from).collect())
}

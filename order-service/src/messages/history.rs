//! What happened to a message: written, refused, failed, retried, discarded, acknowledged; when, and by whom.

use serde::Serialize;
use shared::{runtime::database::Pool, web::http::schema};
use time::OffsetDateTime;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};
use uuid::Uuid;

/// In the order in which they happen where their times are the same.
const EVENTS: [&str; 9] =
    ["placed", "completed", "cancelled", "written", "refused", "failed", "retried", "discarded", "acknowledged"];
/// Of one message, the newest: a message that was sent again and again has many.
const MOST: i64 = 1000;

/// One thing that happened to an order or a message of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TimelineEvent)]
pub struct Event {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// `written`: into the outbox. `acknowledged`: by Kafka, at this partition and offset. `refused`: by Kafka, and tried
    /// again. `failed`: refused for the last time. `retried`, `discarded`: by an operator.
    #[schema(schema_with = events)]
    pub event: String,
    /// Of what happens to a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_ref: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity_type_code: Option<String>,
    /// A person or a program that asked for it, or the instance that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Why it was refused, retried or discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it has been refused by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
}

fn events() -> RefOr<Schema> {
    schema::one_of(EVENTS)
}

/// Oldest first.
pub(crate) fn sort(events: &mut [Event]) {
    let rank = |event: &str| EVENTS.iter().position(|known| *known == event);
    events.sort_by_key(|one| (one.at, rank(&one.event)));
}

/// What happened to a message, oldest first; nothing where it is not known. Of a message whose day was dropped only what
/// operators did is left.
///
/// # Errors
/// The database's.
pub async fn of_message(pool: &Pool, message_ref: Uuid) -> Result<Vec<Event>, sqlx::Error> {
    let mut found = sqlx::query_as!(
        Event,
        r#"
        WITH message AS MATERIALIZED (
            SELECT message_ref, instance, seq, activity_type_code, activity_at FROM outbox WHERE message_ref = $1
            UNION ALL
            SELECT message_ref, instance, seq, activity_type_code, activity_at FROM rejected_messages r
            WHERE message_ref = $1 AND NOT EXISTS (SELECT FROM outbox m WHERE m.message_ref = $1)
        )
        SELECT at AS "at!", event AS "event!", $1::uuid AS message_ref, activity_type_code, by, request_id, reason, failures,
            partition, "offset"
        FROM (
            (SELECT activity_at AS at, 'written' AS event, activity_type_code, 'instance ' || instance AS by,
                NULL::text AS request_id, NULL::text AS reason, NULL::integer AS failures, NULL::integer AS partition,
                NULL::bigint AS "offset"
            FROM message)
            UNION ALL (
                SELECT rejected_at, CASE WHEN is_failed THEN 'failed' ELSE 'refused' END, NULL, 'instance ' || instance,
                    NULL, error, failures, NULL, NULL
                FROM rejections WHERE message_ref = $1 ORDER BY rejected_at DESC LIMIT $2)
            UNION ALL (
                SELECT at, CASE action WHEN 'message_retried' THEN 'retried' ELSE 'discarded' END, NULL, actor, request_id,
                    reason, NULL, NULL, NULL
                FROM audit WHERE subject = ($1::uuid)::text AND action IN ('message_retried', 'message_discarded')
                ORDER BY at DESC LIMIT $2)
            UNION ALL (
                SELECT p.published_at, 'acknowledged', NULL, NULL, NULL, NULL, NULL, p.partitions[n.place], p.offsets[n.place]
                FROM message m CROSS JOIN LATERAL (
                    -- OFFSET: asked for the message, not joined to all there are.
                    SELECT * FROM published WHERE instance = m.instance AND block = m.seq / 4096 OFFSET 0
                ) AS p CROSS JOIN LATERAL array_position(p.seqs, (m.seq % 4096)::smallint) AS n (place)
                WHERE n.place IS NOT NULL ORDER BY p.published_at DESC LIMIT $2)
        ) AS happened
        "#,
        message_ref,
        MOST
    )
    .fetch_all(pool)
    .await?;
    sort(&mut found);
    Ok(found)
}

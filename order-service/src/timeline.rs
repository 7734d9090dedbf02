//! An order's way, as far as this service sees it: placed, each change, each message with what happened to it.

use crate::{
    messages::history::{self, Event},
    order::OrderRef,
};
use shared::runtime::database::Pool;

/// Of one order: it is placed and it ends, each once and with one message.
const MOST: i64 = 10;

/// What happened to an order and its messages, oldest first; none where there is no such order.
///
/// # Errors
/// The database's.
pub async fn of_order(pool: &Pool, order: OrderRef) -> Result<Option<Vec<Event>>, sqlx::Error> {
    let mut events = sqlx::query_as!(
        Event,
        r#"
        SELECT at AS "at!", event AS "event!", message_ref, NULL::text AS activity_type_code, by, request_id, NULL::text AS reason,
            NULL::integer AS failures, NULL::integer AS partition, NULL::bigint AS "offset"
        FROM (
            SELECT placed_at AS at, 'placed' AS event, NULL::uuid AS message_ref, NULL::text AS by, NULL::text AS request_id
            FROM orders WHERE order_id = $1
            UNION ALL (
                SELECT at, CASE action WHEN 'order_completed' THEN 'completed' ELSE 'cancelled' END, NULL, actor, request_id
                FROM audit WHERE subject = order_ref($1) AND action IN ('order_completed', 'order_cancelled')
                ORDER BY at LIMIT $2)
            UNION ALL (
                -- By a version of the program that kept no audit.
                SELECT activity_at, CASE activity_type_code WHEN 'ORDER_COMPLETED' THEN 'completed' ELSE 'cancelled' END,
                    NULL, NULL, NULL
                FROM outbox
                WHERE message_ref = ANY (messages_of_order($1)) AND activity_type_code IN ('ORDER_COMPLETED', 'ORDER_CANCELLED')
                    AND NOT EXISTS (
                        SELECT FROM audit
                        WHERE subject = order_ref($1) AND action IN ('order_completed', 'order_cancelled'))
                LIMIT $2)
        ) AS happened
        "#,
        order.number(),
        MOST
    )
    .fetch_all(pool)
    .await?;
    if !events.iter().any(|one| one.event == "placed") {
        return Ok(None);
    }
    let messages = sqlx::query_scalar!(
        r#"SELECT message_ref AS "message_ref!" FROM unnest(messages_of_order($1)) AS message_ref"#,
        order.number()
    );
    for message_ref in messages.fetch_all(pool).await? {
        events.extend(history::of_message(pool, message_ref).await?);
    }
    history::sort(&mut events);
    Ok(Some(events))
}

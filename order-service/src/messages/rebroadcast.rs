//! The cure for a lost topic: messages that were published are published again. Whoever counts by
//! their references counts them once.

use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::PAGE;

/// Messages of what happened in this span of time: from the first moment, before the second.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: OffsetDateTime,
    pub to: OffsetDateTime,
}

/// How many messages of the span are published.
///
/// # Errors
/// The database's.
pub async fn count(pool: &PgPool, span: Span) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM outbox WHERE state = 'published' AND placed_at >= $1 AND placed_at < $2"#,
        span.from,
        span.to
    );
    Ok(count.fetch_one(pool).await?.unsigned_abs())
}

/// Lets the published messages of the span be published again, page by page; `progress` hears of
/// each page how many it was so far.
///
/// # Errors
/// The database's; what was reset before stays reset, and doing it again is harmless.
pub async fn rebroadcast(pool: &PgPool, span: Span, progress: impl Fn(u64)) -> Result<u64, sqlx::Error> {
    // Published after it began means published again: each message is taken once.
    let began = sqlx::query_scalar!(r#"SELECT now() AS "now!""#).fetch_one(pool).await?;
    let (mut done, mut after) = (0, Uuid::nil());
    loop {
        let page = sqlx::query_scalar!(
            r#"
            UPDATE outbox SET state = 'unpublished', published_at = NULL, partition = NULL, "offset" = NULL,
                failures = 0, last_error = NULL, owner = 0
            WHERE message_ref = ANY (ARRAY(
                SELECT message_ref FROM outbox
                WHERE state = 'published' AND placed_at >= $1 AND placed_at < $2 AND published_at < $3 AND message_ref > $4
                ORDER BY message_ref LIMIT $5 FOR UPDATE
            ))
            RETURNING message_ref
            "#,
            span.from,
            span.to,
            began,
            after,
            PAGE
        );
        let page = page.fetch_all(pool).await?;
        let Some(last) = page.iter().max() else { return Ok(done) };
        after = *last;
        done += u64::try_from(page.len()).unwrap_or(u64::MAX);
        progress(done);
    }
}

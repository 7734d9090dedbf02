//! The cure for a lost topic: messages that were published are published once more. Whoever counts by
//! their references counts them once.
//!
//! A rebroadcast is a row with a span of time and how far it has come. One identity at a time holds it; when
//! that one has ended another goes on from there. Nothing is copied, and no message is changed.

use shared::runtime::database::Pool;
use sqlx::PgConnection;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use time::OffsetDateTime;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{instance_id::InstanceId, message::Message, tables::Row};

/// Messages that are looked at in one go: milliseconds, of which a reloading task has some.
const LOOKED_AT: i64 = 20_000;

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
pub async fn count(pool: &Pool, span: Span) -> Result<u64, sqlx::Error> {
    let count = sqlx::query_scalar!(
        r#"
        WITH unfinished AS (
            SELECT instance_id, settled_to(instance_id) AS settled_to FROM instances WHERE done_at IS NULL
        )
        SELECT count(*) AS "count!"
        FROM outbox m LEFT JOIN unfinished u ON u.instance_id = m.instance
        -- A reference is drawn before the message is written, and kept for a day at most while the outcome of that
        -- is unknown.
        WHERE m.message_ref >= first_reference($1::timestamptz - interval '25 hours')
            AND m.message_ref < first_reference($2::timestamptz + interval '1 hour')
            AND m.activity_at >= $1 AND m.activity_at < $2
            -- Beyond how far its log is settled, where one message waits for its next attempt, by its own mark.
            AND (u.instance_id IS NULL OR m.seq <= u.settled_to OR EXISTS (
                SELECT FROM published p
                WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND (m.seq % 4096)::smallint = ANY (p.seqs)
                OFFSET 0))
            AND NOT EXISTS (SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref)
        "#,
        span.from,
        span.to
    );
    Ok(count.fetch_one(pool).await?.unsigned_abs())
}

/// Lets the published messages of the span be published once more by whichever instance takes it on.
///
/// # Errors
/// The database's; doing it again is harmless.
pub async fn request(connection: &mut PgConnection, span: Span) -> Result<Uuid, sqlx::Error> {
    let rebroadcast_id = Uuid::now_v7();
    sqlx::query!(
        r#"
        INSERT INTO rebroadcasts (rebroadcast_id, from_at, to_at, done_to)
        VALUES ($1, $2, $3, first_reference($2::timestamptz - interval '25 hours'))
        "#,
        rebroadcast_id,
        span.from,
        span.to
    )
    .execute(connection)
    .await?;
    Ok(rebroadcast_id)
}

/// A rebroadcast that this process's identity holds.
#[derive(Debug)]
pub struct Rebroadcast {
    id: Uuid,
    holder: InstanceId,
    span: Span,
    done_to: Uuid,
    /// The last that is looked at now. None where it is not known, or that is the rest.
    looked_to: Option<Uuid>,
    /// What is under way, and up to where it is done with then.
    page: Option<(Arc<RebroadcastPage>, Uuid)>,
    finished: Arc<Notify>,
}

/// What comes next of a rebroadcast.
#[derive(Debug)]
pub enum Next {
    Page(Vec<Message>, Arc<RebroadcastPage>),
    /// Of what was looked at nothing is in the span: more is to be looked at.
    NothingHere,
    /// Nothing is left, which ended it.
    Over,
}

/// Messages of a rebroadcast that are on their way together.
#[derive(Debug)]
pub struct RebroadcastPage {
    left: AtomicUsize,
    finished: Arc<Notify>,
}

impl RebroadcastPage {
    /// One of them is published, or the broker has refused it, which is recorded.
    pub fn handled_one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finished.notify_one();
        }
    }
}

impl Rebroadcast {
    /// The oldest one that nobody living holds, or that this identity holds already.
    ///
    /// # Errors
    /// The database's. Asking again gives the same one.
    pub async fn hold(pool: &Pool, holder: InstanceId, finished: &Arc<Notify>) -> Result<Option<Self>, sqlx::Error> {
        let held = sqlx::query!(
            r#"
            UPDATE rebroadcasts SET holder = $1
            WHERE rebroadcast_id = (
                SELECT rebroadcast.rebroadcast_id FROM (
                    SELECT rebroadcast_id, holder FROM rebroadcasts r
                    WHERE done_at IS NULL AND NOT EXISTS (
                        SELECT FROM instances i WHERE i.instance_id = r.holder AND i.ended_at IS NULL AND i.instance_id <> $1)
                    ORDER BY rebroadcast_id LIMIT 1
                ) AS seen JOIN rebroadcasts rebroadcast USING (rebroadcast_id)
                -- Of a row that has changed since, this alone is asked again: NOT EXISTS is not.
                WHERE rebroadcast.done_at IS NULL AND rebroadcast.holder IS NOT DISTINCT FROM seen.holder
                FOR UPDATE OF rebroadcast SKIP LOCKED
            )
                AND EXISTS (SELECT FROM instances WHERE instance_id = $1 AND ended_at IS NULL)
            RETURNING rebroadcast_id, from_at, to_at, done_to
            "#,
            holder.number()
        );
        Ok(held.fetch_optional(pool).await?.map(|row| Self {
            id: row.rebroadcast_id,
            holder,
            span: Span { from: row.from_at, to: row.to_at },
            done_to: row.done_to,
            looked_to: None,
            page: None,
            finished: Arc::clone(finished),
        }))
    }

    /// Whether messages of it are in memory.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.page.as_ref().is_some_and(|(page, _)| Arc::strong_count(page) > 1)
    }

    /// The next page, once the one before is handled.
    ///
    /// # Errors
    /// The database's. The next time it is the same page.
    pub async fn next_page(&mut self, pool: &Pool, max: usize, format: i16) -> Result<Next, sqlx::Error> {
        // One that was dropped on its way is read again.
        if let Some((_, last)) = self.page.take_if(|(page, _)| page.left.load(Ordering::Acquire) == 0) {
            self.done_to = last;
        }
        // References are of about the time of their messages, and no index has the time itself: what is looked at is
        // bounded, whatever of it is in the span.
        if self.looked_to.is_none_or(|looked_to| looked_to <= self.done_to) {
            let looked_to = sqlx::query_scalar!(
                r#"
                SELECT message_ref FROM outbox
                WHERE message_ref > $1 AND message_ref < first_reference($2::timestamptz + interval '1 hour')
                ORDER BY message_ref OFFSET $3 LIMIT 1
                "#,
                self.done_to,
                self.span.to,
                LOOKED_AT - 1
            );
            self.looked_to = looked_to.fetch_optional(pool).await?;
        }
        let rows = sqlx::query_as!(
            Row,
            r#"
            WITH unfinished AS (
                SELECT instance_id, settled_to(instance_id) AS settled_to FROM instances WHERE done_at IS NULL
            )
            SELECT m.message_ref, m.instance, m.seq, m.order_id, m.order_version, m.activity_type_code, m.activity_at,
                m.format, m.key, m.fields, m.traceparent, m.tracestate, 0 AS "failures!"
            FROM outbox m LEFT JOIN unfinished u ON u.instance_id = m.instance
            WHERE m.message_ref > $1 AND m.message_ref < first_reference($3::timestamptz + interval '1 hour')
                AND m.message_ref <= $6 AND m.activity_at >= $2 AND m.activity_at < $3 AND m.format <= $5
                -- What is not published yet is sent anyway.
                AND (u.instance_id IS NULL OR m.seq <= u.settled_to OR EXISTS (
                    SELECT FROM published p
                    WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND (m.seq % 4096)::smallint = ANY (p.seqs)
                    OFFSET 0))
                AND NOT EXISTS (SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref)
            ORDER BY m.message_ref LIMIT $4
            "#,
            self.done_to,
            self.span.from,
            self.span.to,
            i64::try_from(max).unwrap_or(i64::MAX),
            format,
            self.looked_to.unwrap_or(Uuid::max())
        );
        let messages: Vec<_> = rows.fetch_all(pool).await?.into_iter().map(Message::from).collect();
        let is_over = messages.is_empty() && self.looked_to.is_none();
        if messages.is_empty() {
            self.done_to = self.looked_to.unwrap_or(self.done_to);
        }
        sqlx::query!(
            r#"
            UPDATE rebroadcasts SET done_to = $2, done_at = CASE WHEN $3 THEN now() END
            WHERE rebroadcast_id = $1 AND holder = $4 AND done_at IS NULL
            "#,
            self.id,
            self.done_to,
            is_over,
            self.holder.number()
        )
        .execute(pool)
        .await?;
        let Some(last) = messages.last() else { return Ok(if is_over { Next::Over } else { Next::NothingHere }) };
        // A full page ends before what was looked at.
        let last = self.looked_to.filter(|_| messages.len() < max).unwrap_or(last.message_ref);
        let page = RebroadcastPage { left: AtomicUsize::new(messages.len()), finished: Arc::clone(&self.finished) };
        let page = Arc::new(page);
        self.page = Some((Arc::clone(&page), last));
        Ok(Next::Page(messages, page))
    }
}

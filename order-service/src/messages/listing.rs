//! Messages newest first, by state, page by page. What a page costs does not grow with the outbox: each state has a way
//! to its own messages that does not lead past all the others.

use serde::{Deserialize, Serialize};
use shared::{
    database::Pool,
    paging::{self, Cursor},
    problem::Problem,
    query::Query,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{OutboxMessage, State};

/// One page of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page {
    pub state: State,
    pub limit: i64,
    /// Where the page before ended.
    pub after: Option<Place>,
}

/// A place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Failed and published messages are listed by reference.
    Message(Uuid),
    /// Unpublished ones by log, and by their place in it: there they stand together.
    InLog(i64, i64),
}

impl Page {
    /// # Errors
    /// 400 for what does not parse or is not known, 422 for a limit out of range.
    pub fn parse(query: &str) -> Result<Self, Problem> {
        let mut query = Query::parse(query, &["state", "limit", "cursor"])?;
        let state = query.get("state", "failed, unpublished or published", State::parse)?.unwrap_or_default();
        let limit = query.limit()?;
        let after = query.get("cursor", "a cursor of this list", |text| Cursor::decode(text, &state.name()))?;
        Ok(Self { state, limit, after })
    }
}

/// A row of the view.
struct Listed {
    message_ref: Uuid,
    activity_type_code: String,
    order_ref: String,
    placed_at: OffsetDateTime,
    state: String,
    failures: i32,
    last_error: Option<String>,
    published_at: Option<OffsetDateTime>,
    partition: Option<i32>,
    offset: Option<i64>,
    instance: i64,
    seq: i64,
}

impl Listed {
    fn place(&self, state: State) -> Place {
        match state {
            State::Failed | State::Published => Place::Message(self.message_ref),
            State::Unpublished => Place::InLog(self.instance, self.seq),
        }
    }
}

impl From<Listed> for OutboxMessage {
    fn from(row: Listed) -> Self {
        Self {
            message_ref: row.message_ref,
            activity_type_code: row.activity_type_code,
            order_ref: row.order_ref,
            placed_at: row.placed_at,
            state: row.state,
            failures: row.failures,
            last_error: row.last_error,
            published_at: row.published_at,
            partition: row.partition,
            offset: row.offset,
        }
    }
}

// The columns stand in the text of each query; a view's may all be null as far as Postgres tells.
macro_rules! listed {
    ($from:tt, $($parameter:expr),*) => {
        sqlx::query_as!(
            Listed,
            r#"SELECT message_ref AS "message_ref!", activity_type_code AS "activity_type_code!", order_ref AS "order_ref!",
                activity_at AS "placed_at!", state AS "state!", failures AS "failures!", last_error, published_at,
                partition, "offset", instance AS "instance!", seq AS "seq!" "# + $from,
            $($parameter),*
        )
    };
}

/// A page, and the cursor of the next one where there is more.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, page: &Page) -> Result<(Vec<OutboxMessage>, Option<String>), sqlx::Error> {
    let mut found = match page.state {
        State::Failed => failed(pool, page).await?,
        State::Unpublished => unpublished(pool, page).await?,
        State::Published => published(pool, page).await?,
    };
    let next = paging::cut(&mut found, page.limit, |last| last.place(page.state), &page.state.name());
    Ok((found.into_iter().map(OutboxMessage::from).collect(), next))
}

async fn failed(pool: &Pool, page: &Page) -> Result<Vec<Listed>, sqlx::Error> {
    listed!(
        r#"
        FROM (
            SELECT message_ref AS failed_ref FROM rejected_messages WHERE state = 'failed' AND message_ref < $1
            ORDER BY message_ref DESC LIMIT $2
        ) AS refused CROSS JOIN LATERAL (SELECT * FROM outbox_messages WHERE message_ref = failed_ref OFFSET 0) AS message
        ORDER BY message_ref DESC
        "#,
        page.before_message(),
        page.limit + 1
    )
    .fetch_all(pool)
    .await
}

/// Newest log first. What is settled is never looked at: in a log there is no more behind that than is on
/// its way, or waits for Kafka.
async fn unpublished(pool: &Pool, page: &Page) -> Result<Vec<Listed>, sqlx::Error> {
    let (log, seq) = match page.after {
        Some(Place::InLog(log, seq)) => (log, seq),
        Some(Place::Message(_)) | None => (i64::MAX, i64::MAX),
    };
    listed!(
        r#"
        FROM (
            SELECT place.message_ref AS unpublished_ref, place.instance AS log, place.seq AS place
            FROM instances i CROSS JOIN LATERAL (
                SELECT m.message_ref, m.instance, m.seq FROM outbox m
                WHERE m.instance = i.instance_id AND m.seq > settled_to(i.instance_id) AND (m.instance, m.seq) < ($1, $2)
                    -- OFFSET: asked for each message, not joined to all there are.
                    AND NOT EXISTS (
                        SELECT FROM published p
                        WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND (m.seq % 4096)::smallint = ANY (p.seqs)
                        OFFSET 0)
                    AND NOT EXISTS (
                        SELECT FROM rejected_messages r
                        WHERE r.message_ref = m.message_ref AND r.state <> 'waiting' OFFSET 0)
                ORDER BY m.instance DESC, m.seq DESC LIMIT $3
            ) AS place
            WHERE i.done_at IS NULL AND i.instance_id <= $1
            UNION ALL (
                SELECT message_ref, instance, seq FROM rejected_messages
                WHERE state = 'retrying' AND (instance, seq) < ($1, $2)
                ORDER BY instance DESC, seq DESC LIMIT $3
            )
            ORDER BY log DESC, place DESC LIMIT $3
        ) AS listed CROSS JOIN LATERAL (
            SELECT * FROM outbox_messages WHERE message_ref = unpublished_ref OFFSET 0) AS message
        ORDER BY log DESC, place DESC
        "#,
        log,
        seq,
        page.limit + 1
    )
    .fetch_all(pool)
    .await
}

/// Begins at what was published last: everything written since may wait for Kafka.
async fn published(pool: &Pool, page: &Page) -> Result<Vec<Listed>, sqlx::Error> {
    listed!(
        r#"
        FROM (
            SELECT m.message_ref AS published_ref FROM outbox m
            WHERE m.message_ref < least($1, first_reference(greatest(
                    -- Instances that are forgotten have written nothing since.
                    now() - interval '24 hours',
                    (SELECT max(newest.published_at) FROM instances i CROSS JOIN LATERAL (
                        SELECT p.published_at FROM published p WHERE p.instance = i.instance_id
                        ORDER BY p.block DESC, p.published_at DESC LIMIT 1
                    ) newest)
                ) + interval '1 second'))
                -- OFFSET: asked for each message, not joined to all there are.
                AND EXISTS (
                    SELECT FROM published p
                    WHERE p.instance = m.instance AND p.block = m.seq / 4096 AND (m.seq % 4096)::smallint = ANY (p.seqs)
                    OFFSET 0)
                AND NOT EXISTS (SELECT FROM rejected_messages r WHERE r.message_ref = m.message_ref OFFSET 0)
            ORDER BY m.message_ref DESC LIMIT $2
        ) AS listed CROSS JOIN LATERAL (
            SELECT * FROM outbox_messages WHERE message_ref = published_ref OFFSET 0) AS message
        ORDER BY message_ref DESC
        "#,
        page.before_message(),
        page.limit + 1
    )
    .fetch_all(pool)
    .await
}

impl Page {
    fn before_message(&self) -> Uuid {
        match self.after {
            Some(Place::Message(message_ref)) => message_ref,
            Some(Place::InLog(..)) | None => Uuid::max(),
        }
    }
}

/// # Errors
/// The database's.
pub async fn find(pool: &Pool, message_ref: Uuid) -> Result<Option<OutboxMessage>, sqlx::Error> {
    let found = listed!("FROM outbox_messages WHERE message_ref = $1", message_ref);
    Ok(found.fetch_optional(pool).await?.map(OutboxMessage::from))
}

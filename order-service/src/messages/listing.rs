//! Messages newest first, by state, page by page. What a page costs does not grow with the outbox: each state has a way
//! to its own messages that does not lead past all the others.

use serde::{Deserialize, Serialize};
use shared::{
    runtime::database::Pool,
    web::paging::{self, Cursor},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{MessageFilter, OutboxMessage, State};

/// Messages that one page looks at, whatever it finds: some 100 ms. A page of which little passes the filter ends
/// there, shorter than its limit, and the next one goes on.
const LOOKED_AT: i64 = 50_000;

/// One page of a list, newest first.
#[derive(Clone, Debug)]
pub struct MessagePage {
    pub state: State,
    pub filter: MessageFilter,
    pub limit: i64,
    /// Where the page before ended.
    pub after: Option<PlaceInMessages>,
}

/// A place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlaceInMessages {
    /// Failed and published messages are listed by reference.
    Message(Uuid),
    /// Unpublished ones by log, and by their place in it: there they stand together.
    InLog(i64, i64),
}

impl MessagePage {
    /// The place of a cursor that was made for this list.
    pub(crate) fn place(&self, cursor: &str) -> Option<PlaceInMessages> {
        Cursor::decode(cursor, &self.name())
    }

    /// The page that begins at a cursor which the page before gave.
    #[must_use]
    pub fn next(self, cursor: &str) -> Self {
        let after = self.place(cursor);
        Self { after, ..self }
    }

    fn name(&self) -> (&'static str, &MessageFilter) {
        (self.state.name(), &self.filter)
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
    discarded_at: Option<OffsetDateTime>,
    discarded_by: Option<String>,
    discard_reason: Option<String>,
}

impl Listed {
    fn place(&self, state: State) -> PlaceInMessages {
        match state {
            State::Failed | State::Discarded | State::Published => PlaceInMessages::Message(self.message_ref),
            State::Unpublished => PlaceInMessages::InLog(self.instance, self.seq),
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
            discarded_at: row.discarded_at,
            discarded_by: row.discarded_by,
            discard_reason: row.discard_reason,
        }
    }
}

// The columns stand in the text of each query; a view's may all be null as far as Postgres tells.
macro_rules! listed {
    ([$($from:tt)+], $($parameter:expr),*) => {
        sqlx::query_as!(
            Listed,
            r#"SELECT message_ref AS "message_ref!", activity_type_code AS "activity_type_code!", order_ref AS "order_ref!",
                activity_at AS "placed_at!", state AS "state!", failures AS "failures!", last_error, published_at,
                partition, "offset", instance AS "instance!", seq AS "seq!", discarded_at, discarded_by, discard_reason "# + $($from)+,
            $($parameter),*
        )
    };
}

// Those that wait for an operator, or are given up: a table of their own, and a small one. The state stands in the
// text of the query: a partial index is of use to no parameter.
macro_rules! refused {
    ($state:tt, $page:ident) => {
        listed!(
            ["FROM (SELECT message_ref AS refused_ref FROM rejected_messages WHERE "
                + $state
                + " AND message_ref < $1 "
                + "AND ($3::bigint IS NULL OR order_id = $3) AND ($4::text IS NULL OR activity_type_code = $4) "
                + "AND activity_at >= $5 AND activity_at < $6 "
                + "AND ($7::text IS NULL OR position(lower($7) IN lower(last_error)) > 0) "
                + "ORDER BY message_ref DESC LIMIT $2) AS refused CROSS JOIN LATERAL ("
                + "SELECT * FROM outbox_messages WHERE message_ref = refused_ref OFFSET 0) AS message "
                + "ORDER BY message_ref DESC"],
            $page.before_message(),
            $page.limit + 1,
            $page.filter.order_id,
            $page.filter.activity_type_code.as_deref() as _,
            $page.filter.from(),
            $page.filter.to(),
            $page.filter.error.as_deref() as _
        )
    };
}

/// A page, and the cursor of the next one where there is more.
///
/// # Errors
/// The database's.
pub async fn list(pool: &Pool, page: &MessagePage) -> Result<(Vec<OutboxMessage>, Option<String>), sqlx::Error> {
    let (mut found, floor) = match page.state {
        State::Failed => (refused!("state = 'failed'", page).fetch_all(pool).await?, None),
        State::Discarded => (refused!("state = 'discarded'", page).fetch_all(pool).await?, None),
        State::Unpublished | State::Published if page.filter.order_id.is_some() => (of_order(pool, page).await?, None),
        State::Unpublished => {
            let floor = if page.is_filtered() { unpublished_floor(pool, page).await? } else { None };
            (unpublished(pool, page, floor).await?, floor.map(|(log, seq)| PlaceInMessages::InLog(log, seq)))
        }
        // What is published has no error.
        State::Published if page.filter.error.is_some() => (Vec::new(), None),
        State::Published => {
            let (before, floor) = published_bounds(pool, page).await?;
            (published(pool, page, before, floor).await?, floor.map(PlaceInMessages::Message))
        }
    };
    let next = paging::cut(&mut found, page.limit, |last| last.place(page.state), &page.name());
    let next = next.or_else(|| floor.map(|floor| Cursor::encode(&floor, &page.name())));
    Ok((found.into_iter().map(OutboxMessage::from).collect(), next))
}

/// The few messages of one order.
async fn of_order(pool: &Pool, page: &MessagePage) -> Result<Vec<Listed>, sqlx::Error> {
    let MessageFilter { order_id, activity_type_code, error, .. } = &page.filter;
    let found = listed!(
        [r#"
        FROM outbox_messages WHERE message_ref = ANY (messages_of_order($1)) AND state = $2 AND ($3::text IS NULL OR activity_type_code = $3)
            AND activity_at >= $4 AND activity_at < $5
            AND ($6::text IS NULL OR position(lower($6) IN lower(last_error)) > 0)
        "#],
        *order_id,
        page.state.name(),
        activity_type_code.as_deref() as _,
        page.filter.from(),
        page.filter.to(),
        error.as_deref() as _
    );
    let mut found = found.fetch_all(pool).await?;
    found.retain(|one| match page.after {
        Some(PlaceInMessages::Message(message_ref)) => one.message_ref < message_ref,
        Some(PlaceInMessages::InLog(log, seq)) => (one.instance, one.seq) < (log, seq),
        None => true,
    });
    match page.state {
        State::Unpublished => found.sort_unstable_by_key(|one| std::cmp::Reverse((one.instance, one.seq))),
        State::Failed | State::Discarded | State::Published => {
            found.sort_unstable_by_key(|one| std::cmp::Reverse(one.message_ref));
        }
    }
    Ok(found)
}

/// The place at which a page has looked at enough; none where there is less before it.
async fn unpublished_floor(pool: &Pool, page: &MessagePage) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let (log, seq) = page.before_in_log();
    let floor = sqlx::query!(
        r#"
        SELECT place.instance AS "log!", place.seq AS "seq!"
        FROM instances i CROSS JOIN LATERAL (
            SELECT m.instance, m.seq FROM outbox m
            WHERE m.instance = i.instance_id AND m.seq > settled_to(i.instance_id) AND (m.instance, m.seq) < ($1, $2)
            ORDER BY m.instance DESC, m.seq DESC LIMIT $3
        ) AS place
        WHERE i.done_at IS NULL AND i.instance_id <= $1
        ORDER BY place.instance DESC, place.seq DESC OFFSET $3::bigint - 1 LIMIT 1
        "#,
        log,
        seq,
        LOOKED_AT
    );
    Ok(floor.fetch_optional(pool).await?.map(|row| (row.log, row.seq)))
}

/// Newest log first. What is settled is never looked at.
async fn unpublished(pool: &Pool, page: &MessagePage, floor: Option<(i64, i64)>) -> Result<Vec<Listed>, sqlx::Error> {
    let (log, seq) = page.before_in_log();
    let (floor_log, floor_seq) = floor.unwrap_or((i64::MIN, i64::MIN));
    let MessageFilter { activity_type_code, error, .. } = &page.filter;
    listed!(
        [r#"
        FROM (
            SELECT place.message_ref AS unpublished_ref, place.instance AS log, place.seq AS place
            FROM instances i CROSS JOIN LATERAL (
                SELECT m.message_ref, m.instance, m.seq FROM outbox m
                WHERE m.instance = i.instance_id AND m.seq > settled_to(i.instance_id) AND (m.instance, m.seq) < ($1, $2)
                    AND (m.instance, m.seq) >= ($4, $5)
                    AND ($6::text IS NULL OR m.activity_type_code = $6) AND m.activity_at >= $7 AND m.activity_at < $8
                    AND ($9::text IS NULL OR EXISTS (
                        SELECT FROM rejected_messages r
                        WHERE r.message_ref = m.message_ref AND position(lower($9) IN lower(r.last_error)) > 0 OFFSET 0))
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
                WHERE state = 'retrying' AND (instance, seq) < ($1, $2) AND (instance, seq) >= ($4, $5)
                    AND ($6::text IS NULL OR activity_type_code = $6) AND activity_at >= $7 AND activity_at < $8
                    AND ($9::text IS NULL OR position(lower($9) IN lower(last_error)) > 0)
                ORDER BY instance DESC, seq DESC LIMIT $3
            )
            ORDER BY log DESC, place DESC LIMIT $3
        ) AS listed CROSS JOIN LATERAL (
            SELECT * FROM outbox_messages WHERE message_ref = unpublished_ref OFFSET 0) AS message
        ORDER BY log DESC, place DESC
        "#],
        log,
        seq,
        page.limit + 1,
        floor_log,
        floor_seq,
        activity_type_code.as_deref() as _,
        page.filter.from(),
        page.filter.to(),
        error.as_deref() as _
    )
    .fetch_all(pool)
    .await
}

/// Before which reference a page begins, and the one at which it has looked at enough; none where there is less.
///
/// It begins at what was published last: everything written since may wait for Kafka.
async fn published_bounds(pool: &Pool, page: &MessagePage) -> Result<(Uuid, Option<Uuid>), sqlx::Error> {
    let (from, to) = page.filter.references();
    let bounds = sqlx::query!(
        r#"
        SELECT before AS "before!", CASE WHEN $4 THEN (
            SELECT m.message_ref FROM outbox m WHERE m.message_ref < before AND m.message_ref >= $2
            ORDER BY m.message_ref DESC OFFSET $3::bigint - 1 LIMIT 1
        ) END AS floor
        FROM (
            SELECT least($1, first_reference(greatest(
                -- Instances that are forgotten have written nothing since.
                now() - interval '24 hours',
                (SELECT max(newest.published_at) FROM instances i CROSS JOIN LATERAL (
                    SELECT p.published_at FROM published p WHERE p.instance = i.instance_id
                    ORDER BY p.block DESC, p.published_at DESC LIMIT 1
                ) newest)
            ) + interval '1 second')) AS before
            OFFSET 0
        ) AS begin
        "#,
        page.before_message().min(to),
        from,
        LOOKED_AT,
        page.is_filtered()
    );
    let bounds = bounds.fetch_one(pool).await?;
    Ok((bounds.before, bounds.floor))
}

async fn published(
    pool: &Pool,
    page: &MessagePage,
    before: Uuid,
    floor: Option<Uuid>,
) -> Result<Vec<Listed>, sqlx::Error> {
    listed!(
        [r#"
        FROM (
            SELECT m.message_ref AS published_ref FROM outbox m
            WHERE m.message_ref < $1 AND m.message_ref >= $3
                AND ($4::text IS NULL OR m.activity_type_code = $4) AND m.activity_at >= $5 AND m.activity_at < $6
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
        "#],
        before,
        page.limit + 1,
        floor.unwrap_or(page.filter.references().0),
        page.filter.activity_type_code.as_deref() as _,
        page.filter.from(),
        page.filter.to()
    )
    .fetch_all(pool)
    .await
}

impl MessagePage {
    fn before_message(&self) -> Uuid {
        match self.after {
            Some(PlaceInMessages::Message(message_ref)) => message_ref,
            Some(PlaceInMessages::InLog(..)) | None => Uuid::max(),
        }
    }

    fn is_filtered(&self) -> bool {
        self.filter != MessageFilter::default()
    }

    fn before_in_log(&self) -> (i64, i64) {
        match self.after {
            Some(PlaceInMessages::InLog(log, seq)) => (log, seq),
            Some(PlaceInMessages::Message(_)) | None => (i64::MAX, i64::MAX),
        }
    }
}

/// # Errors
/// The database's.
pub async fn find(pool: &Pool, message_ref: Uuid) -> Result<Option<OutboxMessage>, sqlx::Error> {
    let found = listed!(["FROM outbox_messages WHERE message_ref = $1"], message_ref);
    Ok(found.fetch_optional(pool).await?.map(OutboxMessage::from))
}

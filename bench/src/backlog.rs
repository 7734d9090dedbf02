//! Messages in the outbox: nobody's, as an overflow leaves them behind, or published long ago.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testing::Database;
use tokio::time::sleep;
use uuid::Uuid;

/// A new database with `count` unpublished messages. Vacuumed and written out, so that neither side
/// pays for what was done here.
pub async fn filled(count: i64) -> Result<Database> {
    with(count, false).await
}

/// As [`filled`], but published ten days ago.
pub async fn published(count: i64) -> Result<Database> {
    with(count, true).await
}

async fn with(count: i64, published: bool) -> Result<Database> {
    let database = Database::new(&order_service::app::SCHEMA).await;
    sqlx::query(FILL).bind(count).bind(published).execute(&database.pool).await.context("the messages")?;
    database.execute("VACUUM (ANALYZE) outbox").await;
    database.execute("CHECKPOINT").await;
    Ok(database)
}

/// The references are UUIDv7, four a millisecond, in the order in which they are inserted; key, value
/// and headers are those that placing an order makes.
const FILL: &str = r#"
    INSERT INTO outbox (message_ref, order_id, activity_type_code, placed_at, owner, key, value, headers,
        state, published_at, partition, "offset")
    SELECT message_ref, order_id, 'ORDER_CREATED', placed_at, 0, order_ref(order_id),
        format('{"messageRef":"%s","activityTypeCode":"ORDER_CREATED","activityAt":"%s","orderRef":"%s","orderVersion":1}',
            message_ref, moment, order_ref(order_id)),
        ARRAY['ce_specversion', '1.0', 'ce_id', message_ref::text, 'ce_type', 'summarisation.ORDER_CREATED.v1',
            'ce_source', '/order-service', 'ce_time', moment, 'content-type', 'application/json'],
        CASE WHEN $2 THEN 'published' ELSE 'unpublished' END, CASE WHEN $2 THEN placed_at END,
        CASE WHEN $2 THEN 0 END, CASE WHEN $2 THEN order_id END
    FROM (
        SELECT order_id, at.at AS placed_at, to_char(at.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS moment,
            (lpad(to_hex((extract(epoch FROM at.at) * 1000)::bigint + order_id / 4), 12, '0')
                || '7' || lpad(to_hex(order_id % 4), 3, '0') || '8' || substr(md5(order_id::text), 1, 15))::uuid AS message_ref
        FROM generate_series(1, $1::bigint) AS order_id,
            (SELECT now() - CASE WHEN $2 THEN interval '10 days' ELSE interval '0' END AS at) AS at
    ) AS waiting
"#;

/// More messages than can be in memory at the same time: when all but these are marked, only they
/// are still to be looked at.
const TAIL: i64 = 12_000;

/// Sees when the last message is marked, without asking for unpublished rows while there are many
/// that were until a moment ago: that question reads all their index entries.
#[derive(Debug)]
pub struct Watch<'a> {
    database: &'a Database,
    last: Uuid,
    tail_begin: Uuid,
}

impl<'a> Watch<'a> {
    pub async fn new(database: &'a Database, count: i64) -> Result<Self> {
        let (last, tail_begin) = sqlx::query_as(
            "SELECT max(message_ref::text)::uuid,
                (SELECT message_ref FROM outbox ORDER BY message_ref OFFSET greatest($1 - $2, 0) LIMIT 1) FROM outbox",
        )
        .bind(count)
        .bind(TAIL)
        .fetch_one(&database.pool)
        .await
        .context("the end of the backlog")?;
        Ok(Self { database, last, tail_begin })
    }

    /// Returns within some 10 ms of the last mark.
    pub async fn marked(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let mut question = "SELECT count(*) FROM outbox WHERE message_ref = $1 AND state <> 'published'";
        let mut about = self.last;
        loop {
            let left: i64 = sqlx::query_scalar(question).bind(about).fetch_one(&self.database.pool).await?;
            if left == 0 && about == self.tail_begin {
                return Ok(());
            } else if left == 0 {
                question = "SELECT count(*) FROM outbox WHERE message_ref >= $1 AND state <> 'published'";
                about = self.tail_begin;
                continue;
            }
            ensure!(Instant::now() < end, "the backlog was not drained within {limit:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

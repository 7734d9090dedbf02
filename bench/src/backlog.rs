//! Messages in the outbox: left by an instance that has ended, or published long ago.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testing::Database;
use tokio::time::sleep;

/// A new database with `count` messages that nobody living sends. Vacuumed and written out, so that neither side
/// pays for what was done here.
pub async fn filled(count: i64) -> Result<Database> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    database.execute("INSERT INTO instances (instance_id, ended_at, closed_at) VALUES (1, now(), now())").await;
    fill(&database, 1, count, 0).await?;
    written_out(&database).await;
    Ok(database)
}

/// As [`filled`], but published ten days ago, in acknowledgements of 64.
pub async fn published(count: i64) -> Result<Database> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    fill_published(&database, count).await?;
    written_out(&database).await;
    Ok(database)
}

/// `published` messages of ten days ago, and `unpublished` ones of an instance that is gone and not known to be.
pub async fn beside_published(published: i64, unpublished: i64) -> Result<Database> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    fill_published(&database, published).await?;
    database.execute("INSERT INTO instances (instance_id) VALUES (2)").await;
    fill(&database, 2, unpublished, 0).await?;
    written_out(&database).await;
    Ok(database)
}

async fn fill_published(database: &Database, count: i64) -> Result<()> {
    database.execute("SELECT make_partition(date_trunc('day', now(), 'UTC') - interval '240 hours')").await;
    database
        .execute("INSERT INTO instances (instance_id, ended_at, closed_at, done_at) VALUES (1, now(), now(), now())")
        .await;
    fill(database, 1, count, 240).await?;
    database
        .execute(
            "INSERT INTO published (instance, block, seqs, partitions, offsets, settled_to, published_at)
            SELECT instance, seq / 4096, array_agg((seq % 4096)::smallint), array_agg(0), array_agg(seq), max(seq),
                now() - interval '240 hours'
            FROM outbox GROUP BY instance, seq / 4096, seq / 64",
        )
        .await;
    Ok(())
}

/// As [`filled`], in a table as a plain polling loop has it.
pub async fn polled(count: i64) -> Result<Database> {
    let database = filled(count).await?;
    database.execute(POLLED).await;
    database.execute("TRUNCATE outbox").await;
    database.execute("VACUUM (ANALYZE) polled").await;
    database.execute("CHECKPOINT").await;
    Ok(database)
}

async fn fill(database: &Database, log: i64, count: i64, hours_ago: i32) -> Result<()> {
    sqlx::query(FILL).bind(count).bind(hours_ago).bind(log).execute(&database.pool).await.context("the messages")?;
    Ok(())
}

async fn written_out(database: &Database) {
    database.execute("VACUUM (ANALYZE) outbox").await;
    database.execute("CHECKPOINT").await;
}

/// The references are UUIDv7, four a millisecond, in the order in which they are inserted.
const FILL: &str = "
    INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint + n / 4000000), 12, '0')
            || '7' || lpad(to_hex(n % 4), 3, '0') || '8' || substr(md5(n::text), 1, 15))::uuid,
        $3, n - 1, n, 1, 'ORDER_CREATED', at, 1
    FROM generate_series(1, $1::bigint) AS n, (SELECT now() - make_interval(hours => $2) AS at) AS moment";

/// One row a message, with its bytes and its state, and an index of what is still to be sent.
const POLLED: &str = "
    CREATE TABLE polled (message_ref uuid PRIMARY KEY, key text NOT NULL, value text NOT NULL, headers text[] NOT NULL,
        state text NOT NULL DEFAULT 'unpublished', published_at timestamptz, partition integer, \"offset\" bigint)
        WITH (fillfactor = 85);
    CREATE INDEX polled_unpublished ON polled (message_ref) WHERE state = 'unpublished';
    INSERT INTO polled (message_ref, key, value, headers) SELECT message_ref, key, value, headers FROM outbox_messages";

/// Logs of which something is still to be sent, by how far they are settled: what is asked again and again costs the
/// same however many messages there are.
const UNSETTLED: &str = "
    SELECT count(*) FROM instances i
    WHERE done_at IS NULL AND settled_to(instance_id) < (
        SELECT seq FROM outbox m WHERE m.instance = i.instance_id ORDER BY m.instance DESC, m.seq DESC LIMIT 1)";

/// Returns within some 10 ms of the last acknowledgement that is stated.
pub async fn settled(database: &Database, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while database.number(UNSETTLED).await > 0 {
        ensure!(Instant::now() < end, "not everything was published within {limit:?}");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

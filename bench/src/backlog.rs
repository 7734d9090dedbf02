//! Messages in the outbox: left by an instance that has ended, or published long ago.

use std::{
    cell::Cell,
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use testing::Database;
use tokio::time::sleep;

const NOW: &str = "now()";
/// The beginning of the day that [`old_day`] makes.
const OLD: &str = "(date_trunc('day', now(), 'UTC') - interval '240 hours')";
/// Rows of one statement: whole acknowledgements.
const PART: i64 = 64 * 4000;
const TOLD_EVERY: i64 = 5_000_000;

/// A new database with `count` messages that nobody living sends. Vacuumed and written out, so that neither side
/// pays for what was done here.
pub async fn filled(count: i64) -> Result<Database> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    database.execute("INSERT INTO instances (instance_id, ended_at, closed_at) VALUES (1, now(), now())").await;
    fill(&database, 1, 0..count, 0, NOW).await?;
    written_out(&database).await;
    Ok(database)
}

/// As [`filled`], but published ten days ago, in acknowledgements of 64.
pub async fn published(count: i64) -> Result<Database> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    old_day(&database).await;
    fill_published(&database, 1, 0..count).await?;
    written_out(&database).await;
    Ok(database)
}

/// `published` messages of ten days ago, and `unpublished` ones of an instance that is gone and not known to be. A fifth of
/// those published were its own.
pub async fn beside_published(published: i64, unpublished: i64) -> Result<Database> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    old_day(&database).await;
    let others = published - published / 5;
    fill_published(&database, 1, 0..others).await?;
    database.execute("INSERT INTO instances (instance_id) VALUES (2)").await;
    fill_published(&database, 2, others..published).await?;
    fill(&database, 2, published..published + unpublished, others, NOW).await?;
    written_out(&database).await;
    Ok(database)
}

/// The day of what is published, and the log of an instance of which everything is.
async fn old_day(database: &Database) {
    database.execute("SELECT make_partition(date_trunc('day', now(), 'UTC') - interval '240 hours')").await;
    database
        .execute("INSERT INTO instances (instance_id, ended_at, closed_at, done_at) VALUES (1, now(), now(), now())")
        .await;
}

/// Messages of the old day that begin a log, their acknowledgements of 64, and the log's last word.
async fn fill_published(database: &Database, log: i64, numbers: Range<i64>) -> Result<()> {
    let (before, last) = (numbers.start, numbers.end - 1 - numbers.start);
    let acknowledged = "INSERT INTO published (instance, block, seqs, partitions, offsets, settled_to, published_at)";
    let of_part = format!(
        "{acknowledged}
        SELECT {log}, seq / 4096, array_agg((seq % 4096)::smallint), array_agg(0), array_agg(seq), max(seq), {OLD}
        FROM generate_series($1::bigint - {before}, $2::bigint - {before} - 1) AS seq GROUP BY seq / 4096, seq / 64"
    );
    in_parts(database, &of_part, numbers.clone()).await?;
    let last_word = format!(
        "{acknowledged} VALUES ({log}, {last} / 4096, '{{}}', '{{}}', '{{}}', {last}, {OLD} + interval '1 second')"
    );
    database.execute(&last_word).await;
    database.execute("ANALYZE published").await;
    fill(database, log, numbers, before, OLD).await
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

/// Messages by their `numbers` in the whole table, in a log that begins with number `before`. The references are UUIDv7,
/// four a millisecond, in the order in which they are inserted.
async fn fill(database: &Database, log: i64, numbers: Range<i64>, before: i64, at: &str) -> Result<()> {
    let of_part = format!(
        "INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at, format)
        SELECT (lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint + n / 4), 12, '0')
                || '7' || lpad(to_hex(n % 4), 3, '0') || '8' || substr(md5(n::text), 1, 15))::uuid,
            {log}, n - {before}, n + 1, 1, 'ORDER_CREATED', {at}, 1
        FROM generate_series($1::bigint, $2::bigint - 1) AS n"
    );
    in_parts(database, &of_part, numbers).await
}

/// Inserts rows by their numbers, those from $1 on and before $2 at a time, over two connections. Where that takes
/// minutes it is told how far it has come.
pub async fn in_parts(database: &Database, statement: &str, numbers: Range<i64>) -> Result<()> {
    let next = Cell::new(numbers.start);
    let parts = async || {
        while next.get() < numbers.end {
            let (first, end) = (next.get(), numbers.end.min(next.get() + PART));
            next.set(end);
            sqlx::query(statement).bind(first).bind(end).execute(&database.pool).await.context("the rows")?;
            if first / TOLD_EVERY < end / TOLD_EVERY {
                eprintln!("  written: some {end} of {} rows", numbers.end);
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(parts(), parts())?;
    Ok(())
}

async fn written_out(database: &Database) {
    database.execute("VACUUM (ANALYZE) outbox").await;
    database.execute("CHECKPOINT").await;
}

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

//! The outbox table that Debezium reads, with the rows that order-service has, and whether they are on the topic.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use rdkafka::Message;
use sqlx::{Row, postgres::PgRow};
use testing::{Database, Topic};
use uuid::Uuid;

use crate::{backlog, topic};

/// Rows of a transaction where a backlog is written: logical decoding spills greater ones to disk.
const BATCH: i64 = 1000;

/// A new database with an empty table.
pub async fn empty() -> Database {
    let database = Database::empty().await;
    make(&database).await;
    database
}

/// A new database with as many rows as [`backlog::filled`] has messages, of the same bytes, behind a slot that is read
/// from their beginning.
pub async fn filled(count: i64) -> Result<Database> {
    let database = backlog::filled(count).await?;
    database.execute(STAGED).await;
    database.execute("TRUNCATE outbox").await;
    make(&database).await;
    // A transaction each: a block may commit only where it is a statement of its own.
    let batches = format!(
        "DO $$ BEGIN
            FOR batch IN 0 .. {count} - 1 BY {BATCH} LOOP
                INSERT INTO relayed SELECT message_ref, key, activity_type_code, activity_at, value FROM staged
                WHERE place >= batch AND place < batch + {BATCH} ORDER BY place;
                COMMIT;
            END LOOP;
        END $$"
    );
    database.execute(&batches).await;
    database.execute("DROP TABLE staged").await;
    database.execute("VACUUM (ANALYZE) relayed").await;
    database.execute("CHECKPOINT").await;
    Ok(database)
}

async fn make(database: &Database) {
    database.execute(TABLE).await;
    database.execute("SELECT pg_create_logical_replication_slot('debezium', 'pgoutput')").await;
}

/// The slot holds the server's log back, and its database cannot be dropped while it is read.
pub async fn forget(database: &Database) {
    let unread = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'debezium' AND NOT active";
    testing::wait_until("the slot is read no more", std::time::Duration::from_secs(30), async || {
        database.number(unread).await == 1
    })
    .await;
    database.execute("SELECT pg_drop_replication_slot('debezium')").await;
}

/// Every row is on the topic once, with its key and value, and nothing else is.
pub async fn check(database: &Database, topic: &Topic) -> Result<()> {
    let mut messages: Vec<_> = read(topic).await?;
    let mut rows = rows(database).await?;
    messages.sort_unstable();
    rows.sort_unstable();
    ensure!(rows.len() == messages.len(), "{} rows, but {} messages on the topic", rows.len(), messages.len());
    ensure!(rows == messages, "a row and its message differ");
    Ok(())
}

/// Every row is on the topic with its key and value, and nothing else is; returns how many are there again.
pub async fn check_at_least_once(database: &Database, topic: &Topic) -> Result<usize> {
    let messages = read(topic).await?;
    let rows: HashMap<_, _> = rows(database).await?.into_iter().collect();
    let mut missing = rows.clone();
    for (message_ref, bytes) in &messages {
        ensure!(rows.get(message_ref) == Some(bytes), "message {message_ref} is no row");
        missing.remove(message_ref);
    }
    ensure!(missing.is_empty(), "{} rows are not on the topic", missing.len());
    Ok(messages.len() - rows.len())
}

async fn rows(database: &Database) -> Result<Vec<(Uuid, u64)>> {
    let rows = sqlx::query("SELECT message_ref, order_ref, payload FROM relayed").fetch_all(&database.pool).await?;
    let hash = |row: &PgRow| topic::hash(row.get::<&str, _>(1).as_bytes(), row.get::<&str, _>(2).as_bytes());
    Ok(rows.iter().map(|row| (row.get(0), hash(row))).collect())
}

async fn read(topic: &Topic) -> Result<Vec<(Uuid, u64)>> {
    topic::each(topic, &[], |message| {
        let value = message.payload().unwrap_or_default();
        let message_ref = topic::message_ref(value).context("a message without messageRef")?;
        Ok((message_ref, topic::hash(message.key().unwrap_or_default(), value)))
    })
    .await
}

const STAGED: &str = "
    CREATE UNLOGGED TABLE staged (place bigint PRIMARY KEY, message_ref uuid, key text, activity_type_code text,
        activity_at timestamptz, value text);
    INSERT INTO staged SELECT seq, message_ref, key, activity_type_code, activity_at, value FROM outbox_messages;
    ANALYZE staged";

const TABLE: &str = "
    CREATE TABLE relayed (message_ref uuid PRIMARY KEY, order_ref text NOT NULL, activity_type_code text NOT NULL,
        activity_at timestamptz NOT NULL, payload text NOT NULL);
    CREATE PUBLICATION debezium FOR TABLE relayed";

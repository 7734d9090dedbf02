//! Whether what is in the outbox is on the topic: judged by id, position, key and value.

use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::{Row, postgres::PgRow};
use testing::{Database, Topic};

use crate::{
    backlog,
    topic::{self, Stored},
};

/// Waits until every message is published.
///
/// # Panics
/// That takes longer than a minute.
pub async fn settled(database: &Database) {
    backlog::settled(database, Duration::from_secs(60)).await.expect("every message is published");
}

/// Every message is published, with its place; every message is on the topic once, with its key and value, and nothing
/// else is.
pub async fn check(database: &Database, topic: &Topic) -> Result<()> {
    let left = database.number(&format!("SELECT count(*) FROM ({MESSAGES}) AS messages WHERE partition IS NULL")).await;
    ensure!(left == 0, "{left} messages are not published");
    compare(database, topic, MESSAGES).await
}

/// As [`check`], of the table that the polling loop has.
pub async fn check_table(database: &Database, topic: &Topic, table: &str) -> Result<()> {
    let left = database.number(&format!("SELECT count(*) FROM {table} WHERE state <> 'published'")).await;
    ensure!(left == 0, "{left} messages are not published");
    compare(database, topic, &format!(r#"SELECT message_ref, partition, "offset", key, value FROM {table}"#)).await
}

/// Where each message stands by what was acknowledged, and its bytes. Joined as a whole: `outbox_messages` looks up each
/// message by itself, in minutes for a million.
const MESSAGES: &str = r#"
    SELECT m.message_ref, p.partition, p."offset", a.key, a.value FROM outbox m
    CROSS JOIN LATERAL announcement(
        m.message_ref, m.activity_type_code, m.activity_at, m.order_id, m.order_version, m.traceparent, m.tracestate) a
    LEFT JOIN (
        SELECT instance, block * 4096 + seq AS seq, partition, "offset"
        FROM published, unnest(seqs, partitions, offsets) AS place (seq, partition, "offset")
    ) p USING (instance, seq)"#;

async fn compare(database: &Database, topic: &Topic, messages: &str) -> Result<()> {
    // The bytes of millions are not kept.
    let hashed = |row: PgRow| -> Result<Stored, sqlx::Error> {
        let (key, value): (&str, &str) = (row.try_get("key")?, row.try_get("value")?);
        let hash = topic::hash(key.as_bytes(), value.as_bytes());
        Ok((row.try_get("message_ref")?, row.try_get("partition")?, row.try_get("offset")?, hash))
    };
    let mut rows: Vec<Stored> = sqlx::query(messages).try_map(hashed).fetch_all(&database.pool).await?;
    rows.sort_unstable();
    let messages = topic::stored(topic).await?;
    ensure!(rows.len() == messages.len(), "{} rows, but {} messages on the topic", rows.len(), messages.len());
    let differs = rows.iter().zip(&messages).find(|(row, message)| row != message);
    ensure!(differs.is_none(), "a row and its message differ: {differs:?}");
    Ok(())
}

//! Whether what is in the outbox is on the topic: judged by id and position.

use std::time::Duration;

use anyhow::{Result, ensure};
use testing::{Database, Topic};

use crate::{
    backlog,
    topic::{self, Place},
};

/// Waits until every message is published.
///
/// # Panics
/// That takes longer than a minute.
pub async fn settled(database: &Database) {
    backlog::settled(database, Duration::from_secs(60)).await.expect("every message is published");
}

/// Every message is published, with its place; every message is on the topic once, and nothing else is.
pub async fn check(database: &Database, topic: &Topic) -> Result<()> {
    let left = database.number(&format!("SELECT count(*) FROM ({PLACES}) AS places WHERE partition IS NULL")).await;
    ensure!(left == 0, "{left} messages are not published");
    compare(database, topic, PLACES).await
}

/// As [`check`], of the table that the polling loop has.
pub async fn check_table(database: &Database, topic: &Topic, table: &str) -> Result<()> {
    let left = database.number(&format!("SELECT count(*) FROM {table} WHERE state <> 'published'")).await;
    ensure!(left == 0, "{left} messages are not published");
    compare(database, topic, &format!(r#"SELECT message_ref, partition, "offset" FROM {table}"#)).await
}

/// Where each message stands by what was acknowledged. Joined as a whole: `outbox_messages` looks up each message by
/// itself, in minutes for a million.
const PLACES: &str = r#"
    SELECT m.message_ref, p.partition, p."offset" FROM outbox m
    LEFT JOIN (
        SELECT instance, block * 4096 + seq AS seq, partition, "offset"
        FROM published, unnest(seqs, partitions, offsets) AS place (seq, partition, "offset")
    ) p USING (instance, seq)"#;

async fn compare(database: &Database, topic: &Topic, places: &str) -> Result<()> {
    let mut rows: Vec<Place> = sqlx::query_as(places).fetch_all(&database.pool).await?;
    rows.sort_unstable();
    let messages = topic::places(topic).await?;
    ensure!(rows.len() == messages.len(), "{} rows, but {} messages on the topic", rows.len(), messages.len());
    let differs = rows.iter().zip(&messages).find(|(row, message)| row != message);
    ensure!(differs.is_none(), "a row and its message differ: {differs:?}");
    Ok(())
}

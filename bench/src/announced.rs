//! Whether what is in the outbox is on the topic: judged by id and position.

use std::time::Duration;

use anyhow::{Result, ensure};
use testing::{Database, Topic, wait_until};

use crate::topic::{self, Place};

const UNPUBLISHED: &str = "SELECT count(*) FROM outbox WHERE state <> 'published'";

/// Waits until every message is marked as published.
pub async fn settled(database: &Database) {
    wait_until("every message is marked", Duration::from_secs(60), async || database.number(UNPUBLISHED).await == 0)
        .await;
}

/// Every row is marked, with the place of its message; every message is on the topic once, and
/// nothing else is.
pub async fn check(database: &Database, topic: &Topic) -> Result<()> {
    let left = database.number(UNPUBLISHED).await;
    ensure!(left == 0, "{left} messages are not marked as published");
    let mut rows: Vec<Place> =
        sqlx::query_as(r#"SELECT message_ref, partition, "offset" FROM outbox"#).fetch_all(&database.pool).await?;
    rows.sort_unstable();
    let messages = topic::places(topic).await?;
    ensure!(rows.len() == messages.len(), "{} rows, but {} messages on the topic", rows.len(), messages.len());
    let differs = rows.iter().zip(&messages).find(|(row, message)| row != message);
    ensure!(differs.is_none(), "a row and its message differ: {differs:?}");
    Ok(())
}

//! What the database is asked for each scrape.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::PgConnection;

use crate::{
    completeness, gaps,
    metrics::{
        COMPLETE_AGE, COMPLETENESS_UNKNOWN, DIFFERING_MINUTES, OLDEST_QUARANTINED, OPEN_GAP_OFFSETS, OPEN_GAPS,
        QUARANTINED, REASONS, SILENT_SOURCES, WITHOUT_VALUE,
    },
    rejection::Reason,
    retention::days,
};

/// The numbers that live in the table, of all instances.
///
/// How much there is to read does not grow with the table: counting ends at 10,001 entries of an index
/// that holds only what waits, for each of the reasons.
pub fn of_database(
    topics: &[String],
) -> impl for<'a> Fn(&'a mut PgConnection) -> BoxFuture<'a, Result<(), sqlx::Error>> + Send + Sync + use<> {
    let topics: Arc<[String]> = topics.into();
    move |connection| Box::pin(read(connection, Arc::clone(&topics)))
}

async fn read(connection: &mut PgConnection, topics: Arc<[String]>) -> Result<(), sqlx::Error> {
    let reasons: Vec<&str> = REASONS.to_vec();
    let found = sqlx::query!(
        r#"
        SELECT reason AS "reason!", (SELECT count(*) FROM (
            -- by the words, which are in the index that holds nothing else
            SELECT FROM quarantine q WHERE q.state = 'waiting' AND q.reason = replace(known.reason, '_', ' ')
            LIMIT 10001
        ) AS bounded) AS "waiting!"
        FROM UNNEST($1::text[]) AS known (reason)
        "#,
        &reasons as _
    )
    .fetch_all(&mut *connection)
    .await?;
    let oldest = sqlx::query_scalar!(
        r#"
        SELECT EXTRACT(EPOCH FROM now() - received_at)::double precision FROM quarantine
        WHERE state = 'waiting' ORDER BY quarantine_id LIMIT 1
        "#
    );
    let oldest = oldest.fetch_optional(&mut *connection).await?.flatten();
    let without_value = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "without_value!" FROM (
            SELECT FROM quarantine WHERE state = 'waiting' AND value_sha256 IS NOT NULL LIMIT 10001
        ) AS bounded
        "#
    );
    WITHOUT_VALUE.set_count(without_value.fetch_one(&mut *connection).await?.unsigned_abs());
    for row in found {
        if let Some(reason) = Reason::parse(&row.reason) {
            QUARANTINED.set_count_of(reason.as_str(), row.waiting.unsigned_abs());
        }
    }
    OLDEST_QUARANTINED.set(oldest.unwrap_or(0.0).max(0.0));
    let (open, offsets) = gaps::how_many(&mut *connection).await?;
    OPEN_GAPS.set_count(open);
    OPEN_GAP_OFFSETS.set_count(offsets);
    let told = completeness::differences(&mut *connection, &topics).await?;
    match told.age {
        Some(age) => COMPLETE_AGE.set(age.max(0.0)),
        None => COMPLETE_AGE.forget(),
    }
    COMPLETENESS_UNKNOWN.set(if told.age.is_none() { 1.0 } else { 0.0 });
    SILENT_SOURCES.set_count(told.silent.unsigned_abs());
    DIFFERING_MINUTES.set_count(told.differing.unsigned_abs());
    days::gauge_partitions_ahead(connection).await
}

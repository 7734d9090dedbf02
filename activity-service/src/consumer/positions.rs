//! How far each partition is counted, in the database. Kafka's own group offsets decide where reading
//! resumes; what they cannot tell is that a topic is not the one any more, or has lost what was next.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, PgPool};

use super::{batch::Batch, group::Partition};

/// The next message of a partition is not the one that was expected. Often there never was one in
/// between: transactions and compaction leave holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    pub expected: i64,
    pub came: i64,
}

/// What is expected next of the partitions in `part` of a batch; not of those that are new.
///
/// # Errors
/// As Postgres answers.
pub async fn expected(
    transaction: &mut PgConnection,
    batch: &Batch,
    part: &std::ops::Range<usize>,
) -> Result<BTreeMap<Partition, i64>, sqlx::Error> {
    let partitions: BTreeSet<Partition> =
        batch.starts(part).into_iter().map(|(place, _)| (place.topic.clone(), place.partition)).collect();
    let partitions: Vec<Partition> = partitions.into_iter().collect();
    next_offsets(transaction, &partitions).await
}

/// Where `part` of a batch does not begin where the counted messages end.
#[must_use]
pub fn jumps(
    expected: &BTreeMap<Partition, i64>,
    batch: &Batch,
    part: &std::ops::Range<usize>,
) -> Vec<(Partition, Jump)> {
    let mut starts = BTreeMap::new();
    for (place, first) in batch.starts(part) {
        starts.entry((place.topic.clone(), place.partition)).or_insert(first);
    }
    let jump = |(partition, came)| {
        let expected = *expected.get(&partition)?;
        (expected < came).then_some((partition, Jump { expected, came }))
    };
    starts.into_iter().filter_map(jump).collect()
}

/// What is to be read next, of those partitions of which something was read.
///
/// # Errors
/// As Postgres answers.
pub async fn next_offsets(
    connection: &mut PgConnection,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, i64>, sqlx::Error> {
    let topics: Vec<&str> = partitions.iter().map(|(topic, _)| topic.as_str()).collect();
    let numbers: Vec<i32> = partitions.iter().map(|(_, number)| *number).collect();
    let rows = sqlx::query!(
        r#"
        SELECT topic, partition, next_offset FROM consumer_positions
        WHERE (topic, partition) IN (SELECT * FROM UNNEST($1::text[], $2::int[]))
        "#,
        &topics as _,
        &numbers
    );
    let rows = rows.fetch_all(connection).await?;
    Ok(rows.into_iter().map(|row| ((row.topic, row.partition), row.next_offset)).collect())
}

/// Sets a position to where the topic really is, forwards or backwards. False where it has moved
/// since it was `seen`: then somebody counts, and knows better.
///
/// # Errors
/// The database's.
pub async fn replace(pool: &PgPool, of: &Partition, seen: i64, next: i64) -> Result<bool, sqlx::Error> {
    let replaced = sqlx::query!(
        "UPDATE consumer_positions SET next_offset = $4 WHERE topic = $1 AND partition = $2 AND next_offset = $3",
        of.0,
        of.1,
        seen,
        next
    );
    Ok(replaced.execute(pool).await?.rows_affected() == 1)
}

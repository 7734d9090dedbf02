//! Messages that are read again, with a whole topic for one: their keys are found by the page. The keys of
//! a day lie in the order of the references, and so do, more or less, the messages of the topic.
//!
//! It only saves work. Whether a key is new is said by its insert, and what is not found here goes there.

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{day, plan_with_values};
use crate::activity::Received;

/// So many keys are read of a page for each message that is looked for: those of other partitions of the topic lie between.
const SPREAD: usize = 2;
/// So many pages are read at most: of a topic of more partitions a message by itself costs no more.
const PAGES: usize = 8;

/// Which of those at the indexes `again` have a key that says that this very activity was counted from this
/// very place. Undated ones are left out: their keys lie in no order.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn counted_before(
    transaction: &mut PgConnection,
    received: &[Received<'_>],
    again: impl Iterator<Item = usize>,
) -> Result<HashSet<usize>, sqlx::Error> {
    let mut by_day: BTreeMap<Date, Vec<usize>> = BTreeMap::new();
    for index in again {
        if let Some(day) = day(received[index].activity.message_ref) {
            by_day.entry(day).or_default().push(index);
        }
    }
    let mut found = HashSet::new();
    if !by_day.is_empty() {
        plan_with_values(&mut *transaction).await?;
    }
    for mut indexes in by_day.into_values() {
        indexes.sort_unstable_by_key(|index| received[*index].activity.message_ref);
        let page_size = SPREAD * indexes.len();
        let mut left = indexes.as_slice();
        for _ in 0..PAGES {
            if left.is_empty() {
                break;
            }
            let messages: Vec<_> = left.iter().map(|index| &received[*index]).collect();
            let numbers = of_a_day(&mut *transaction, &messages, page_size).await?;
            let numbers: Vec<_> = numbers.into_iter().filter_map(|number| usize::try_from(number).ok()).collect();
            found.extend(numbers.iter().filter_map(|number| left.get(*number)));
            // Up to the last one that was found everything was looked at.
            let Some(last) = numbers.into_iter().max() else { break };
            left = left.get(last + 1..).unwrap_or_default();
        }
    }
    Ok(found)
}

/// The numbers, from 0 on, of those found in the page that begins with the least reference of `messages`.
async fn of_a_day(
    transaction: &mut PgConnection,
    messages: &[&Received<'_>],
    page_size: usize,
) -> Result<Vec<i64>, sqlx::Error> {
    let refs: Vec<Uuid> = messages.iter().map(|one| one.activity.message_ref).collect();
    let codes: Vec<&str> = messages.iter().map(|one| one.activity.code.as_str()).collect();
    let times: Vec<OffsetDateTime> = messages.iter().map(|one| one.activity.at).collect();
    let topics: Vec<&str> = messages.iter().map(|one| one.topic).collect();
    let partitions: Vec<i32> = messages.iter().map(|one| one.partition).collect();
    let offsets: Vec<i64> = messages.iter().map(|one| one.offset).collect();
    let found = sqlx::query_scalar!(
        r#"
        SELECT number - 1 AS "number!" FROM (
            SELECT message_ref, activity_type_code, activity_at, topic, partition, "offset" FROM processed_messages
            WHERE NOT undated AND message_ref BETWEEN $7 AND $8
            ORDER BY message_ref LIMIT $9
        ) AS page
        JOIN UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::int[], $6::bigint[]) WITH ORDINALITY
            AS again (message_ref, activity_type_code, activity_at, topic, partition, "offset", number)
            USING (message_ref, activity_type_code, activity_at, topic, partition, "offset")
        "#,
        &refs,
        &codes as _,
        &times,
        &topics as _,
        &partitions,
        &offsets,
        refs.iter().min(),
        refs.iter().max(),
        i64::try_from(page_size).unwrap_or(i64::MAX),
    );
    found.fetch_all(transaction).await
}

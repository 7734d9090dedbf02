//! The figures: how many activities of each type on each day, and in each hour.
//!
//! A figure changes only together with the keys of the messages it counts, in one statement; so
//! figures and keys agree in every snapshot, and a message that comes again changes nothing. A figure is the
//! sum of its shards: transactions that count at the same time add to different rows.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::{contract::message::ActivityTypeCode, runtime::database::Pool};
use sqlx::PgConnection;
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{activity::Received, key, record::Digest};

mod hours;

pub use hours::{HourSummary, by_hour};

time::serde::format_description!(pub(crate) iso_date, Date, "[year]-[month]-[day]");

/// What is to be read next of a partition, once what comes with it is counted.
#[derive(Debug)]
pub struct PositionAfter<'a> {
    pub topic: &'a str,
    pub partition: i32,
    /// The partition's, as it was when reading began.
    pub generation: i64,
    pub next_offset: i64,
    /// Of the record before.
    pub digest: Digest,
}

/// How many activities, by day and type.
pub type Figures = BTreeMap<(Date, String), u64>;

pub fn add(to: &mut Figures, more: Figures) {
    for (figure, change) in more {
        *to.entry(figure).or_default() += change;
    }
}

/// What became of activities.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many keys were new.
    pub counted: Figures,
    /// The time of the oldest activity whose key was.
    pub oldest_counted: Option<OffsetDateTime>,
    /// The indexes of those whose key is of another type or time: no duplicates, but other activities.
    pub conflicting: BTreeSet<usize>,
}

/// Counts each activity whose key is new, and moves the positions. Their types are registered, and their keys have partitions.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn count(
    transaction: &mut PgConnection,
    time_zone: &str,
    activities: &[Received<'_>],
    positions: &[PositionAfter<'_>],
) -> Result<Outcome, sqlx::Error> {
    let refs: Vec<Uuid> = activities.iter().map(|one| one.activity.message_ref).collect();
    let codes: Vec<&str> = activities.iter().map(|one| one.activity.code.as_str()).collect();
    let times: Vec<OffsetDateTime> = activities.iter().map(|one| one.activity.at).collect();
    let topics: Vec<&str> = activities.iter().map(|one| one.topic).collect();
    let partitions: Vec<i32> = activities.iter().map(|one| one.partition).collect();
    let offsets: Vec<i64> = activities.iter().map(|one| one.offset).collect();
    let read_topics: Vec<&str> = positions.iter().map(|one| one.topic).collect();
    let read_partitions: Vec<i32> = positions.iter().map(|one| one.partition).collect();
    let next_offsets: Vec<i64> = positions.iter().map(|one| one.next_offset).collect();
    let generations: Vec<i64> = positions.iter().map(|one| one.generation).collect();
    let digests: Vec<&[u8]> = positions.iter().map(|one| one.digest.as_slice()).collect();
    let rows = sqlx::query!(
        r#"
        WITH received AS (
            -- A message that stands twice in the batch is one.
            SELECT DISTINCT ON (message_ref) *
            FROM UNNEST($2::uuid[], $3::text[], $4::timestamptz[], $5::text[], $6::int[], $7::bigint[])
                AS message (message_ref, activity_type_code, activity_at, topic, partition, "offset")
            ORDER BY message_ref, topic, partition, "offset"
        ), counted AS (
            INSERT INTO processed_messages
                (message_ref, undated, activity_type_code, activity_date, activity_at, topic, partition, "offset")
            SELECT message_ref, key_is_undated(message_ref), activity_type_code, (activity_at AT TIME ZONE $1)::date,
                activity_at, topic, partition, "offset"
            FROM received
            -- Sorted, here and below: two batches that meet the same rows wait for each other at the
            -- first one instead of in a circle.
            ORDER BY message_ref
            ON CONFLICT (message_ref, undated) DO NOTHING
            RETURNING activity_date, activity_type_code, activity_at
        ), free AS (
            -- The first that nobody else adds to until the transaction ends. Its lock is given back after the
            -- locks of its rows, so that whoever has it waits for none of them. Beyond 16 at once one waits.
            -- Advisory locks are the database's: the table tells them from those of an installation in another schema.
            SELECT shard FROM generate_series(0, 15) AS shard
            WHERE pg_try_advisory_xact_lock('daily_activity_shards'::regclass::oid::bigint << 32 | shard) LIMIT 1
        ), figures AS (
            INSERT INTO daily_activity_shards AS figure
                (activity_date, activity_type_code, shard, quantity, last_counted_at)
            SELECT activity_date, activity_type_code, coalesce((SELECT shard FROM free), 0), count(*), now()
            FROM counted
            GROUP BY activity_date, activity_type_code
            ORDER BY activity_date, activity_type_code
            ON CONFLICT (activity_date, activity_type_code, shard)
                DO UPDATE SET quantity = figure.quantity + excluded.quantity, last_counted_at = excluded.last_counted_at
        ), hours AS (
            INSERT INTO hourly_activity_shards AS figure (hour, activity_type_code, shard, quantity)
            SELECT date_trunc('hour', activity_at, 'UTC'), activity_type_code, coalesce((SELECT shard FROM free), 0), count(*)
            FROM counted
            GROUP BY 1, 2
            ORDER BY 1, 2
            ON CONFLICT (hour, activity_type_code, shard) DO UPDATE SET quantity = figure.quantity + excluded.quantity
        ), positions AS (
            INSERT INTO consumer_positions AS known
                (topic, partition, generation, next_offset, last_offset, last_digest, seen_offset, seen_digest)
            SELECT DISTINCT ON (topic, partition) topic, partition, generation, next_offset, next_offset - 1, digest,
                next_offset - 1, digest
            FROM UNNEST($8::text[], $9::int[], $10::bigint[], $11::bigint[], $12::bytea[])
                AS read (topic, partition, next_offset, generation, digest)
            ORDER BY topic, partition, generation DESC, next_offset DESC
            -- An instance that lost the partition may come late with what it had in hand. Backwards goes
            -- a position only where the topic is seen to be another one, and then that one's generation grows.
            ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset,
                last_offset = excluded.last_offset, last_digest = excluded.last_digest,
                seen_offset = coalesce(known.seen_offset, excluded.seen_offset),
                seen_digest = coalesce(known.seen_digest, excluded.seen_digest)
            WHERE known.generation = excluded.generation AND known.next_offset < excluded.next_offset
        )
        SELECT activity_date, activity_type_code, count(*) AS "counted!", min(activity_at) AS "oldest!" FROM counted
        GROUP BY activity_date, activity_type_code
        "#,
        time_zone,
        &refs,
        &codes as _,
        &times,
        &topics as _,
        &partitions,
        &offsets,
        &read_topics as _,
        &read_partitions,
        &next_offsets,
        &generations,
        &digests as _,
    )
    .fetch_all(&mut *transaction)
    .await?;
    let oldest_counted = rows.iter().map(|row| row.oldest).min();
    let counted: Figures =
        rows.into_iter().map(|row| ((row.activity_date, row.activity_type_code), row.counted.unsigned_abs())).collect();
    let are_all_new = counted.values().sum::<u64>() == activities.len() as u64;
    let conflicting = if are_all_new { BTreeSet::new() } else { note_copies(transaction, activities).await? };
    Ok(Outcome { counted, oldest_counted, conflicting })
}

/// Notes where else counted messages stand, for as long as that is their keys are needed. What is
/// only delivered again is no copy, so nothing is written for it. Answers with the indexes of those that are
/// no copies, because something else was counted under their reference.
async fn note_copies(
    transaction: &mut PgConnection,
    activities: &[Received<'_>],
) -> Result<BTreeSet<usize>, sqlx::Error> {
    key::plan_with_values(&mut *transaction).await?;
    let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, one) in activities.iter().enumerate() {
        places.entry(key::day(one.activity.message_ref)).or_default().push(index);
    }
    let mut conflicting = BTreeSet::new();
    for (day, indexes) in places {
        let copies: Vec<_> = indexes.iter().map(|index| &activities[*index]).collect();
        let refs: Vec<Uuid> = copies.iter().map(|one| one.activity.message_ref).collect();
        let codes: Vec<&str> = copies.iter().map(|one| one.activity.code.as_str()).collect();
        let times: Vec<OffsetDateTime> = copies.iter().map(|one| one.activity.at).collect();
        let topics: Vec<&str> = copies.iter().map(|one| one.topic).collect();
        let partitions: Vec<i32> = copies.iter().map(|one| one.partition).collect();
        let offsets: Vec<i64> = copies.iter().map(|one| one.offset).collect();
        let numbers = sqlx::query_scalar!(
            r#"
            WITH found AS (
                SELECT copy.*, (copy.code, copy.at) <> (key.activity_type_code, key.activity_at) AS conflicts,
                    (copy.topic, copy.partition) <> (key.topic, key.partition) OR copy."offset" > key."offset" AS is_copy
                FROM UNNEST($1::uuid[], $2::text[], $3::int[], $4::bigint[], $8::text[], $9::timestamptz[])
                    WITH ORDINALITY AS copy (message_ref, topic, partition, "offset", code, at, number)
                JOIN processed_messages AS key USING (message_ref)
                -- one partition of the keys
                WHERE key.undated = $5 AND key.message_ref BETWEEN $6 AND $7
            ), noted AS (
                INSERT INTO message_copies AS known (message_ref, topic, partition, "offset")
                SELECT message_ref, topic, partition, max("offset") FROM found
                WHERE is_copy AND NOT conflicts
                GROUP BY message_ref, topic, partition
                ORDER BY message_ref, topic, partition
                ON CONFLICT (message_ref, topic, partition)
                    DO UPDATE SET "offset" = excluded."offset" WHERE known."offset" < excluded."offset"
            )
            SELECT number - 1 AS "number!" FROM found WHERE conflicts
            "#,
            &refs,
            &topics as _,
            &partitions,
            &offsets,
            day.is_none(),
            refs.iter().min(),
            refs.iter().max(),
            &codes as _,
            &times,
        );
        let numbers = numbers.fetch_all(&mut *transaction).await?.into_iter();
        conflicting.extend(numbers.filter_map(|number| indexes.get(usize::try_from(number).ok()?)));
    }
    Ok(conflicting)
}

/// A figure, as it is told.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivitySummary {
    /// The day, in the business time zone.
    #[serde(with = "iso_date")]
    pub activity_date: Date,
    /// The type, as messages name it.
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    /// The type, for people.
    pub activity_type_name: String,
    /// How many were counted on the day.
    #[schema(minimum = 0)]
    pub quantity: i64,
    /// When it last grew; unknown of figures from before that was kept.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_counted_at: Option<OffsetDateTime>,
    /// How much of it came after the day was complete.
    #[schema(minimum = 0)]
    pub late_quantity: i64,
    /// How many more the sources wrote in the minutes of the day that are closed, of the last seven days.
    #[schema(minimum = 0)]
    pub missing_quantity: i64,
}

/// The figures of the day it is now, by Postgres's clock.
///
/// # Errors
/// The database does not answer.
pub async fn of_today(pool: &Pool, time_zone: &str) -> Result<Vec<ActivitySummary>, sqlx::Error> {
    let today = today(pool, time_zone).await?;
    between(pool, time_zone, (today, today), None).await
}

/// The day it is now, by Postgres's clock.
///
/// # Errors
/// The database does not answer.
pub async fn today(pool: &Pool, time_zone: &str) -> Result<Date, sqlx::Error> {
    let today = sqlx::query_scalar!(r#"SELECT (now() AT TIME ZONE $1)::date AS "today!""#, time_zone);
    today.fetch_one(pool).await
}

/// The figures from the first to the last day, both included, by day and code. Where all is missing it is 0.
///
/// # Errors
/// The database does not answer.
pub async fn between(
    pool: &Pool,
    time_zone: &str,
    (from, to): (Date, Date),
    code: Option<&str>,
) -> Result<Vec<ActivitySummary>, sqlx::Error> {
    sqlx::query_as!(
        ActivitySummary,
        r#"
        WITH counted AS (
            SELECT activity_date, activity_type_code, quantity, last_counted_at FROM daily_activities
            WHERE activity_date BETWEEN $1 AND $2
        ), missing AS (
            SELECT (minute AT TIME ZONE $4)::date AS activity_date, activity_type_code, sum(expected - counted)::bigint AS missing
            FROM differing_minutes
            -- For as long as a minute is looked at again: later nobody sees whether it was made good.
            WHERE expected > counted AND minute > now() - interval '7 days' AND minute >= $1::date::timestamp AT TIME ZONE $4
                AND minute < ($2::date + 1)::timestamp AT TIME ZONE $4
            GROUP BY 1, 2
        )
        SELECT activity_date AS "activity_date!", activity_type_code AS "activity_type_code!", activity_type_name,
            coalesce(quantity, 0) AS "quantity!", last_counted_at,
            CASE WHEN complete_at IS NULL THEN 0
                ELSE greatest(coalesce(quantity, 0) - coalesce((quantities ->> activity_type_code)::bigint, 0), 0)
            END AS "late_quantity!", coalesce(missing, 0) AS "missing_quantity!"
        FROM counted FULL JOIN missing USING (activity_date, activity_type_code) JOIN activity_types USING (activity_type_code)
            LEFT JOIN complete_days USING (activity_date)
        WHERE $3::text IS NULL OR activity_type_code = $3
        -- Codes are ASCII: in the same order on every server.
        ORDER BY activity_date, activity_type_code COLLATE "C"
        "#,
        from,
        to,
        code,
        time_zone,
    )
    .fetch_all(pool)
    .await
}

/// A type that is counted.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityType {
    /// The type, as messages name it.
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    /// The type, for people.
    pub activity_type_name: String,
}

/// The registered types, by code.
///
/// # Errors
/// The database does not answer.
pub async fn types(connection: impl sqlx::PgExecutor<'_>) -> Result<Vec<ActivityType>, sqlx::Error> {
    sqlx::query_as!(
        ActivityType,
        r#"SELECT activity_type_code, activity_type_name FROM activity_types ORDER BY activity_type_code COLLATE "C""#
    )
    .fetch_all(connection)
    .await
}

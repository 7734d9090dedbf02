//! How far each partition is counted, in the database, and by which record it is seen that the partition is
//! still the one that was read. Reading begins here; Kafka's own group offsets can only make it begin earlier.

use shared::runtime::database::Pool;
use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::{
    batch::{Batch, Run},
    group::Reached,
};
use crate::{
    gaps,
    place::{Jump, Partition},
    record::Digest,
};

/// What is to be read next of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub next_offset: i64,
    /// Grows when the partition turns out to be another one.
    pub generation: i64,
    /// The record that was counted last.
    pub last: Option<Record>,
    /// One that was counted before the topic was last seen to be the same.
    pub seen: Option<Record>,
    /// Where a source had told that the partition ends, before it told of an end before that one.
    pub told_end: Option<i64>,
}

/// A record that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: i64,
    pub digest: Vec<u8>,
}

impl Position {
    /// The record that has to stand where it stood, if one of those known can still be read.
    #[must_use]
    pub fn evidence(&self, low: i64) -> Option<&Record> {
        self.seen.iter().chain(&self.last).find(|record| record.offset >= low)
    }
}

impl Reached {
    /// Whether the database is not as far any more.
    #[must_use]
    pub fn is_lost_by(self, position: Option<&Position>) -> bool {
        position.map_or(self.next_offset > 0, |position| {
            (position.generation, position.next_offset) < (self.generation, self.next_offset)
        })
    }
}

impl Record {
    fn new(offset: Option<i64>, digest: Option<Vec<u8>>) -> Option<Self> {
        Some(Self { offset: offset?, digest: digest? })
    }

    #[must_use]
    pub fn is(&self, digest: Option<&Digest>) -> bool {
        digest.is_some_and(|digest| self.digest == digest)
    }
}

/// The positions of the partitions in `part` of a batch, of those that have one.
///
/// # Errors
/// As Postgres answers.
pub async fn of_batch(
    transaction: &mut PgConnection,
    batch: &Batch,
    part: &std::ops::Range<usize>,
) -> Result<BTreeMap<Partition, Position>, sqlx::Error> {
    let partitions: BTreeSet<Partition> = batch.starts(part).into_iter().map(|(place, _)| place.partition()).collect();
    let partitions: Vec<Partition> = partitions.into_iter().collect();
    of(transaction, &partitions).await
}

/// Within one part at most so many jumps are noted, the largest: a topic that is compacted is full of holes.
const WITHIN_AT_MOST: usize = 10;

/// Where `part` of a batch does not begin where the counted messages end, and where it goes on further than the marker
/// of a transaction takes: what was deleted under way is passed within a batch, too. What was read of a partition as it
/// was before, or is not this member's to move on with, jumps over nothing.
#[must_use]
pub fn jumps(
    positions: &BTreeMap<Partition, Position>,
    batch: &Batch,
    part: &std::ops::Range<usize>,
) -> Vec<(Partition, Jump)> {
    let (mut reached, mut at_start, mut within) = (BTreeMap::new(), Vec::new(), Vec::new());
    for Run { place, first, next } in batch.runs(part) {
        let partition = place.partition();
        let position = positions.get(&partition);
        let generation = position.map_or(0, |position| position.generation);
        if place.tenure.is_none_or(|tenure| tenure.generation != generation) {
            continue;
        }
        let jumps = if reached.contains_key(&partition) { &mut within } else { &mut at_start };
        // Of a partition without a position everything is expected.
        let expected =
            reached.entry(partition.clone()).or_insert_with(|| position.map_or(0, |position| position.next_offset));
        if *expected < first {
            jumps.push((partition, Jump { expected: *expected, came: first }));
        }
        *expected = next.max(*expected);
    }
    within.sort_by_key(|(_, Jump { expected, came })| expected - came);
    within.truncate(WITHIN_AT_MOST);
    at_start.extend(within);
    at_start
}

/// The positions of `partitions`, of those that have one.
///
/// # Errors
/// As Postgres answers.
pub async fn of(
    connection: &mut PgConnection,
    partitions: &[Partition],
) -> Result<BTreeMap<Partition, Position>, sqlx::Error> {
    let (topics, numbers) = Partition::columns(partitions);
    let rows = sqlx::query!(
        r#"
        SELECT topic, partition, next_offset, generation, last_offset, last_digest, seen_offset, seen_digest, told_end
        FROM consumer_positions
        WHERE (topic, partition) IN (SELECT * FROM UNNEST($1::text[], $2::int[]))
        "#,
        &topics as _,
        &numbers
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    let position = rows.map(|row| {
        let position = Position {
            next_offset: row.next_offset,
            generation: row.generation,
            last: Record::new(row.last_offset, row.last_digest),
            seen: Record::new(row.seen_offset, row.seen_digest),
            told_end: row.told_end,
        };
        (Partition::new(row.topic, row.partition), position)
    });
    Ok(position.collect())
}

/// Notes that the topic was the same one after `record` was counted.
///
/// # Errors
/// As Postgres answers.
pub async fn is_the_same(pool: &Pool, of: &Partition, generation: i64, record: &Record) -> Result<(), sqlx::Error> {
    let noted = sqlx::query!(
        r#"
        UPDATE consumer_positions SET seen_offset = $4, seen_digest = $5
        WHERE topic = $1 AND partition = $2 AND generation = $3 AND seen_offset IS DISTINCT FROM $4
        "#,
        of.topic,
        of.number,
        generation,
        record.offset,
        record.digest
    );
    // None where another member has seen something else meanwhile.
    noted.execute(pool).await?;
    Ok(())
}

/// Notes that the topic was the same one after a source told of an end before one that it had told.
///
/// # Errors
/// As Postgres answers.
pub async fn is_not_doubted(pool: &Pool, of: &Partition, generation: i64, told_end: i64) -> Result<(), sqlx::Error> {
    let noted = sqlx::query!(
        r#"
        UPDATE consumer_positions SET told_end = NULL
        WHERE topic = $1 AND partition = $2 AND generation = $3 AND told_end = $4
        "#,
        of.topic,
        of.number,
        generation,
        told_end
    );
    noted.execute(pool).await.map(drop)
}

/// Sets a position back to the beginning of another partition than the one it was of. False where somebody else
/// has done so. What was still unchecked can never be checked, and what a source has told of behind the position was lost
/// unread.
///
/// # Errors
/// As Postgres answers.
pub async fn begin_anew(pool: &Pool, of: &Partition, generation: i64, low: i64) -> Result<bool, sqlx::Error> {
    let begun = sqlx::query_scalar!(
        r#"
        WITH before AS (
            SELECT topic, partition, next_offset, coalesce(told_end, (
                SELECT max((ends ->> p.partition::text)::bigint) FROM sources
                WHERE sources.topic = p.topic AND told_at > now() - interval '1 minute'
            )) AS told_end
            FROM consumer_positions p WHERE topic = $1 AND partition = $2 AND generation = $3
            FOR UPDATE
        ), anew AS (
            UPDATE consumer_positions p SET next_offset = $4, generation = generation + 1, last_offset = NULL,
                last_digest = NULL, seen_offset = NULL, seen_digest = NULL, told_end = NULL
            FROM before WHERE (p.topic, p.partition) = (before.topic, before.partition)
            RETURNING p.topic, p.partition
        ), lost AS (
            INSERT INTO consumption_gaps AS known (topic, partition, from_offset, to_offset, state)
            SELECT topic, partition, next_offset, told_end, 'open' FROM before WHERE told_end > next_offset
            ON CONFLICT (topic, partition, from_offset) WHERE state <> 'closed'
                DO UPDATE SET to_offset = excluded.to_offset WHERE known.to_offset < excluded.to_offset
        ), outdated AS (
            -- They are those of the partition as it was.
            UPDATE sources SET ends = NULL WHERE topic IN (SELECT topic FROM anew)
        ), gaps AS (
            UPDATE consumption_gaps SET state = 'open'
            WHERE (topic, partition) IN (SELECT topic, partition FROM anew) AND state = 'unchecked'
        )
        SELECT count(*) AS "begun!" FROM anew
        "#,
        of.topic,
        of.number,
        generation,
        low
    );
    Ok(begun.fetch_one(pool).await? == 1)
}

/// Notes that the database has lost what it had counted of a partition. What was read as though it still had that moves no
/// position any more, whoever has it in hand, and reading begins again where the database is. False where somebody else
/// has done so.
///
/// # Errors
/// As Postgres answers.
pub async fn are_lost(connection: &mut PgConnection, of: &Partition, reached: Reached) -> Result<bool, sqlx::Error> {
    let noted = sqlx::query!(
        r#"
        INSERT INTO consumer_positions AS known (topic, partition, generation, next_offset) VALUES ($1, $2, $3::bigint + 1, 0)
        ON CONFLICT (topic, partition) DO UPDATE SET generation = excluded.generation
            WHERE (known.generation, known.next_offset) < ($3, $4)
        "#,
        of.topic,
        of.number,
        reached.generation,
        reached.next_offset
    );
    Ok(noted.execute(connection).await?.rows_affected() == 1)
}

/// Sets a position back to messages that were jumped over although the topic has them; they are read again, and what is
/// behind them. False where somebody else has looked after that gap.
///
/// # Errors
/// As Postgres answers.
pub async fn go_back(pool: &Pool, gap: &gaps::Unchecked) -> Result<bool, sqlx::Error> {
    let back = sqlx::query_scalar!(
        r#"
        WITH gap AS (
            DELETE FROM consumption_gaps WHERE gap_id = $1 AND state = 'unchecked' RETURNING topic, partition, from_offset
        ), back AS (
            UPDATE consumer_positions p SET generation = generation + 1, next_offset = least(next_offset, from_offset)
            FROM gap WHERE (p.topic, p.partition) = (gap.topic, gap.partition)
        )
        SELECT count(*) AS "back!" FROM gap
        "#,
        gap.id
    );
    Ok(back.fetch_one(pool).await? == 1)
}

/// Gives a partition of which nothing was counted, and that has nothing any more, its position: what it had is a gap. False
/// where somebody counts.
///
/// # Errors
/// As Postgres answers.
pub async fn begin_emptied(pool: &Pool, of: &Partition, jump: Jump) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let begun = sqlx::query!(
        "INSERT INTO consumer_positions (topic, partition, next_offset) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        of.topic,
        of.number,
        jump.came
    );
    let begun = begun.execute(&mut *transaction).await?.rows_affected() == 1;
    if begun {
        gaps::note(&mut transaction, &[(of.clone(), jump)], gaps::GapState::Open).await?;
    }
    transaction.commit().await?;
    Ok(begun)
}

/// Moves a position over messages that the topic does not have any more, where none comes behind them. False
/// where it has moved meanwhile: then somebody counts, and knows better.
///
/// # Errors
/// As Postgres answers.
pub async fn pass(pool: &Pool, of: &Partition, jump: Jump) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let passed = sqlx::query!(
        "UPDATE consumer_positions SET next_offset = $4 WHERE topic = $1 AND partition = $2 AND next_offset = $3",
        of.topic,
        of.number,
        jump.expected,
        jump.came
    );
    let passed = passed.execute(&mut *transaction).await?.rows_affected() == 1;
    if passed {
        gaps::note(&mut transaction, &[(of.clone(), jump)], gaps::GapState::Open).await?;
    }
    transaction.commit().await?;
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{consumer::group::Group, record::Raw};

    /// Holds: What a topic loses while it is on its way to a batch is a gap.
    #[test]
    fn what_is_missing_within_a_part_is_jumped_over_like_what_is_missing_before_it() {
        let partition = Partition::new("t", 0);
        let (group, mut batch) = (Group::reading(&partition), Batch::default());
        let offsets = [100, 101, 103, 5000, 5001, 5000];
        for offset in offsets {
            let raw =
                Raw { topic: "t", partition: 0, offset, key: None, value: Some(b"x"), ce_type: None, timestamp: None };
            batch.add(&raw, &group);
        }
        let jumps = |next_offset, part: std::ops::Range<usize>| {
            let position = Position { next_offset, generation: 0, last: None, seen: None, told_end: None };
            let jumps = jumps(&[(partition.clone(), position)].into(), &batch, &part);
            jumps.into_iter().map(|(_, jump)| (jump.expected, jump.came)).collect::<Vec<_>>()
        };
        assert_eq!(jumps(100, 0..6), [(104, 5000)], "102 may be the marker of a transaction");
        assert_eq!(jumps(90, 0..6), [(90, 100), (104, 5000)]);
        assert_eq!(jumps(104, 3..6), [(104, 5000)]);
        assert_eq!(jumps(5002, 0..6), [], "all of it comes again");
    }

    #[test]
    fn only_what_is_below_the_low_watermark_is_lost() {
        let lost_to = |low| Jump { expected: 10, came: 20 }.lost_to(low);
        assert_eq!([lost_to(30), lost_to(20), lost_to(15)], [Some(20), Some(20), Some(15)]);
        assert_eq!([lost_to(10), lost_to(0)], [None, None], "a hole");
    }

    #[test]
    fn the_record_that_is_looked_for_is_the_oldest_that_can_be_read() {
        let record = |offset| Some(Record { offset, digest: vec![0; 32] });
        let position = Position { next_offset: 21, generation: 0, last: record(20), seen: record(10), told_end: None };
        let evidence = |low| position.evidence(low).map(|record| record.offset);
        assert_eq!([evidence(0), evidence(11), evidence(21)], [Some(10), Some(20), None]);
    }
}

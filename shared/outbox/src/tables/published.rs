//! What the broker has acknowledged, and how far each log is settled with it.

use sqlx::PgConnection;
use uuid::Uuid;

use super::BLOCK;
use crate::instance_id::InstanceId;

/// Where an acknowledged message is.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub message_ref: Uuid,
    pub log: InstanceId,
    pub seq: i64,
    pub partition: i32,
    pub offset: i64,
    /// The broker had refused it before.
    pub was_refused: bool,
}

/// The last word on a log: everything up to `to` is settled. `highest` is the highest place of which
/// an acknowledgement was stated; the statement belongs to its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledTo {
    pub log: InstanceId,
    pub to: i64,
    pub highest: i64,
}

/// States what the broker has acknowledged, and how far the logs are settled with it. Both are facts:
/// stating them twice is harmless.
///
/// # Errors
/// The database's.
pub async fn mark_published(
    connection: &mut PgConnection,
    published: &[Published],
    settled: &[SettledTo],
) -> Result<(), sqlx::Error> {
    let mut published: Vec<_> = published.iter().collect();
    published.sort_unstable_by_key(|one| (one.log.number(), one.seq));
    let mut rows = Rows::default();
    for (place, one) in (1..).zip(&published) {
        rows.add(one.log, one.seq / BLOCK, place, settled);
    }
    for one in settled {
        if !rows.has(one.log, one.highest / BLOCK) {
            rows.add_empty(one);
        }
    }
    let seqs: Vec<_> =
        published.iter().map(|one| i16::try_from(one.seq % BLOCK).expect("a place in a block is below 4096")).collect();
    let partitions: Vec<_> = published.iter().map(|one| one.partition).collect();
    let offsets: Vec<_> = published.iter().map(|one| one.offset).collect();
    let refused: Vec<_> = published.iter().filter(|one| one.was_refused).map(|one| one.message_ref).collect();
    sqlx::query!(
        r#"
        WITH accepted_at_last AS (
            DELETE FROM rejected_messages WHERE message_ref = ANY ($9)
        )
        INSERT INTO published (instance, block, seqs, partitions, offsets, settled_to)
        SELECT instance, block, ($6::smallint[])[first:last], ($7::integer[])[first:last], ($8::bigint[])[first:last],
            settled_to
        FROM UNNEST($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::bigint[])
            AS row (instance, block, first, last, settled_to)
        "#,
        &rows.logs,
        &rows.blocks,
        &rows.firsts,
        &rows.lasts,
        &rows.settled as &[Option<i64>],
        &seqs,
        &partitions,
        &offsets,
        &refused
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The rows of one statement of acknowledgements: one for each block, with the places in the arrays
/// where its messages stand, counted from 1.
#[derive(Debug, Default)]
struct Rows {
    logs: Vec<i64>,
    blocks: Vec<i64>,
    firsts: Vec<i32>,
    lasts: Vec<i32>,
    settled: Vec<Option<i64>>,
}

impl Rows {
    /// Messages come sorted by log and place.
    fn add(&mut self, log: InstanceId, block: i64, place: i32, settled: &[SettledTo]) {
        if self.logs.last() == Some(&log.number()) && self.blocks.last() == Some(&block) {
            *self.lasts.last_mut().expect("as long as the others") = place;
            return;
        }
        self.logs.push(log.number());
        self.blocks.push(block);
        self.firsts.push(place);
        self.lasts.push(place);
        self.settled.push(settled.iter().find(|one| one.log == log).map(|one| one.to));
    }

    fn add_empty(&mut self, settled: &SettledTo) {
        self.logs.push(settled.log.number());
        self.blocks.push(settled.highest / BLOCK);
        self.firsts.push(1);
        self.lasts.push(0);
        self.settled.push(Some(settled.to));
    }

    fn has(&self, log: InstanceId, block: i64) -> bool {
        self.logs.iter().zip(&self.blocks).any(|row| row == (&log.number(), &block))
    }
}

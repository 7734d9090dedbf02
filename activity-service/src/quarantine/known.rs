//! What comes from the topic and is in quarantine already. It stays there: only an operator takes a
//! message out, neither a second delivery nor a rule or a clock that would let it in by now.
//!
//! The same value at another place is a copy, made by sending the message again. It is kept too, and
//! shares the lot of the first: waiting or discarded. A value that was mended is another message.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

/// What is to be looked for: references, and the offsets of each partition, the end excluded.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    pub refs: Vec<Uuid>,
    pub topics: Vec<&'a str>,
    pub partitions: Vec<i32>,
    pub firsts: Vec<i64>,
    pub ends: Vec<i64>,
}

/// A message that may be there.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub value: Option<&'a [u8]>,
    /// Of a message that could be read.
    pub message_ref: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    New,
    /// Delivered again.
    Kept,
    /// Sent again: of this message.
    CopyOf(Uuid),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Known {
    rows: Vec<Row>,
    by_place: HashMap<(i32, i64), Vec<usize>>,
    by_ref: HashMap<Uuid, Vec<usize>>,
}

#[derive(Debug)]
struct Row {
    quarantine_id: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
    message_ref: Option<Uuid>,
    value_sha256: Vec<u8>,
}

impl Known {
    /// Looks for messages and keeps others from deciding about what is found until the transaction
    /// ends. What was counted from the quarantine is not told: its key keeps it from coming back.
    ///
    /// # Errors
    /// As Postgres answers. The transaction is lost then.
    pub async fn look_for(transaction: &mut PgConnection, wanted: &Wanted<'_>) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"
            SELECT quarantine_id, topic, partition, "offset", message_ref, value_sha256 AS "value_sha256!"
            FROM quarantine
            WHERE state <> 'counted' AND quarantine_id IN (
                SELECT quarantine_id FROM quarantine WHERE state <> 'counted' AND message_ref = ANY ($1)
                UNION ALL
                SELECT quarantine_id
                FROM UNNEST($2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS read (topic, partition, first, next)
                JOIN quarantine AS kept USING (topic, partition)
                WHERE kept."offset" >= read.first AND kept."offset" < read.next
            )
            -- in the order of a replay, so that neither blocks the other
            ORDER BY quarantine_id FOR SHARE
            "#,
            &wanted.refs,
            &wanted.topics as _,
            &wanted.partitions,
            &wanted.firsts,
            &wanted.ends,
        );
        let mut known = Self { rows: rows.fetch_all(transaction).await?, ..Self::default() };
        for (index, row) in known.rows.iter().enumerate() {
            known.by_place.entry((row.partition, row.offset)).or_default().push(index);
            if let Some(message_ref) = row.message_ref {
                known.by_ref.entry(message_ref).or_default().push(index);
            }
        }
        Ok(known)
    }

    #[must_use]
    pub fn standing(&self, seen: &Seen<'_>) -> Standing {
        let here = self.by_place.get(&(seen.partition, seen.offset));
        let elsewhere = seen.message_ref.and_then(|message_ref| self.by_ref.get(&message_ref));
        if here.is_none() && elsewhere.is_none() {
            return Standing::New;
        }
        let hash = Sha256::digest(seen.value.unwrap_or_default());
        // A topic created anew may hold another message at the same offset: the hash tells.
        let same = |indexes: Option<&Vec<usize>>| {
            let rows = indexes.into_iter().flatten().map(|index| &self.rows[*index]);
            rows.filter(|row| row.value_sha256 == hash[..]).collect::<Vec<_>>()
        };
        if same(here).iter().any(|row| row.topic == seen.topic) {
            return Standing::Kept;
        }
        same(elsewhere).first().map_or(Standing::New, |row| Standing::CopyOf(row.quarantine_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_or_a_reference_is_not_enough_it_has_to_be_the_same_value() {
        let (id, message_ref) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let row = Row {
            quarantine_id: id,
            topic: "t".into(),
            partition: 0,
            offset: 7,
            message_ref: Some(message_ref),
            value_sha256: Sha256::digest(b"value").to_vec(),
        };
        let known =
            Known { rows: vec![row], by_place: [((0, 7), vec![0])].into(), by_ref: [(message_ref, vec![0])].into() };
        let standing = |topic, offset, value: &[u8], message_ref| {
            known.standing(&Seen { topic, partition: 0, offset, value: Some(value), message_ref })
        };
        assert_eq!(standing("t", 7, b"value", Some(message_ref)), Standing::Kept);
        assert_eq!(standing("t", 7, b"value", None), Standing::Kept, "unreadable");
        assert_eq!(standing("t", 8, b"value", Some(message_ref)), Standing::CopyOf(id));
        assert_eq!(standing("other", 7, b"value", Some(message_ref)), Standing::CopyOf(id));
        assert_eq!(standing("t", 7, b"of a topic made anew", Some(Uuid::from_u128(3))), Standing::New);
        assert_eq!(standing("t", 8, b"mended", Some(message_ref)), Standing::New);
        assert_eq!(standing("t", 8, b"value", None), Standing::New);
        assert_eq!(
            Known::default().standing(&Seen { topic: "t", partition: 0, offset: 7, value: None, message_ref: None }),
            Standing::New
        );
    }
}

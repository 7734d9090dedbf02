//! What comes from the topic and is in quarantine already. It stays there: only an operator takes a
//! message out, neither a second delivery nor a rule or a clock that would let it in by now.
//!
//! The same message at another place is a copy, made by sending it again. It shares the row of the first, and so
//! its state: waiting or discarded. However many copies come, a batch looks for one row and locks one row for
//! each different message that it brings. A value that was mended is another message.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Reason;
use crate::{key::plan_with_values, place::TopicPlace};

/// What makes two messages in quarantine the same. A migration has made them too: they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 32]);

impl Identity {
    /// Of a message that could be read: whatever else it comes with, its sender means the same.
    #[must_use]
    pub fn of_read(message_ref: Uuid, value: Option<&[u8]>) -> Self {
        let hash = Sha256::new().chain_update([2]).chain_update(message_ref.as_bytes());
        Self(hash.chain_update(value.unwrap_or_default()).finalize().into())
    }

    /// Of any other: everything counts, for nobody knows what it means.
    #[must_use]
    pub fn of_unread(key: Option<&[u8]>, ce_type: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in [key, ce_type, value] {
            match part {
                None => hash.update([0]),
                Some(bytes) => {
                    hash.update([1]);
                    hash.update((bytes.len() as u64).to_be_bytes());
                    hash.update(bytes);
                }
            }
        }
        Self(hash.finalize().into())
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// Under what a message may be there.
#[derive(Clone, Copy, Debug)]
pub struct Identities {
    pub read: Option<Identity>,
    /// An earlier version of the service may have been unable to read it.
    pub unread: Identity,
}

/// A row, and where the message stood that it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    pub quarantine_id: Uuid,
    /// None of one that a later version of the service has.
    pub reason: Option<Reason>,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

impl Original {
    pub(super) fn new(quarantine_id: Uuid, reason_code: &str, topic: String, partition: i32, offset: i64) -> Self {
        Self { quarantine_id, reason: Reason::parse(reason_code), topic, partition, offset }
    }

    #[must_use]
    pub fn stands_at(&self, place: TopicPlace<'_>) -> bool {
        TopicPlace { topic: &self.topic, partition: self.partition, offset: self.offset } == place
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Known(HashMap<Identity, Original>);

impl Known {
    /// Looks for messages and keeps others from deciding about what is found until the transaction
    /// ends. What was counted from the quarantine is not told: its key keeps it from coming back.
    /// Unless it was corrected: then the key is not that of the message that came.
    ///
    /// # Errors
    /// As Postgres answers. The transaction is lost then.
    pub async fn look_for(transaction: &mut PgConnection, wanted: &[Identities]) -> Result<Self, sqlx::Error> {
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        // From here to the end of the transaction: a plan that was made while the quarantine was small reads it whole, and
        // in the first hour of a flood of bad messages nothing has told the planner that it is not small any more.
        plan_with_values(&mut *transaction).await?;
        let mut wanted: Vec<Identity> =
            wanted.iter().flat_map(|one| one.read.into_iter().chain([one.unread])).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let wanted: Vec<&[u8]> = wanted.iter().map(Identity::as_bytes).collect();
        let rows = sqlx::query!(
            r#"
            SELECT identity, quarantine_id, reason_code, topic, partition, "offset" FROM quarantine
            WHERE quarantine_id IN (
                -- each by an index of its own
                SELECT quarantine_id FROM quarantine WHERE state <> 'counted' AND identity = ANY ($1)
                UNION ALL
                SELECT quarantine_id FROM quarantine WHERE corrected_value IS NOT NULL AND identity = ANY ($1)
            )
            -- once more, of what somebody has decided about meanwhile
            AND (state <> 'counted' OR corrected_value IS NOT NULL)
            -- In the order of a replay, so that neither blocks the other. Alone, so that whoever counts the
            -- copies of a message sees those of everybody before.
            ORDER BY quarantine_id FOR NO KEY UPDATE
            "#,
            &wanted as _,
        );
        let rows = rows.fetch_all(transaction).await?.into_iter();
        let originals = rows.filter_map(|row| {
            let original = Original::new(row.quarantine_id, &row.reason_code, row.topic, row.partition, row.offset);
            Some((Identity::parse(&row.identity)?, original))
        });
        Ok(Self(originals.collect()))
    }

    #[must_use]
    pub fn original(&self, of: Option<&Identities>) -> Option<&Original> {
        let of = of?;
        of.read.and_then(|read| self.0.get(&read)).or_else(|| self.0.get(&of.unread))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_read_the_reference_and_the_bytes_decide_of_anything_else_every_byte() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(Identity::of_read(one, Some(b"value")), Identity::of_read(one, Some(b"value")));
        assert_ne!(Identity::of_read(one, Some(b"value")), Identity::of_read(one, Some(b"mended")));
        assert_ne!(Identity::of_read(one, Some(b"value")), Identity::of_read(other, Some(b"value")));
        let unread = [
            (None, None, None),
            (None, None, Some(&b""[..])),
            (None, Some(&b""[..]), None),
            (Some(&b""[..]), None, None),
            (Some(&b"ab"[..]), Some(&b"c"[..]), None),
            (Some(&b"a"[..]), Some(&b"bc"[..]), None),
        ];
        let all: std::collections::BTreeSet<_> =
            unread.iter().map(|(key, ce_type, value)| Identity::of_unread(*key, *ce_type, *value)).collect();
        assert_eq!(all.len(), unread.len());
    }
}

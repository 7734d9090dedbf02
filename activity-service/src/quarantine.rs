//! Messages that could not be counted: why, and with everything needed to try them again.

mod content;
pub mod correction;
pub mod discarding;
pub mod filter;
pub mod known;
pub mod listing;
pub mod replay;
pub mod room;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

pub use content::Content;
pub use discarding::{Discard, Discarded, Discarding, discard};
pub use filter::{Filter, Pass};
pub use known::{Identities, Identity, Known, Original};
pub use listing::{Entry, Page, QuarantineState, find, list};
pub use replay::{Replay, Replayed};
pub use room::Room;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::place::TopicPlace;
pub use crate::rejection::{Reason, Rejected};

/// A message on its way into quarantine.
#[derive(Debug)]
pub struct Kept<'a> {
    pub place: TopicPlace<'a>,
    pub identity: Identity,
    pub content: Content<'a>,
    pub why: Cow<'a, Rejected>,
}

/// Where a message stands that has a row already: a copy, or the same message delivered again.
#[derive(Debug)]
pub struct Again<'a> {
    pub original: Original,
    pub place: TopicPlace<'a>,
}

/// Keeps messages, and notes the places of those that are kept already; answers with how many of both are
/// new, by reason. Of what comes when a topic has no room left only the hash of the value is kept.
///
/// # Errors
/// As Postgres answers. The transaction is lost then.
pub async fn keep<'a>(
    transaction: &mut PgConnection,
    messages: Vec<Kept<'a>>,
    mut again: Vec<Again<'a>>,
    room: &Room,
) -> Result<BTreeMap<Reason, u64>, sqlx::Error> {
    // The first of the same ones stands for all. Every writer takes the rows in one order, so that two of them
    // cannot block each other.
    let mut new: BTreeMap<Identity, Vec<Kept<'a>>> = BTreeMap::new();
    for one in messages {
        new.entry(one.identity).or_default().push(one);
    }
    let mut kept = BTreeMap::new();
    if !new.is_empty() {
        for (identity, original, is_new) in insert(&mut *transaction, &new, room).await? {
            if let (true, Some(reason)) = (is_new, original.reason) {
                *kept.entry(reason).or_default() += 1;
            }
            let same = new.get(&identity).into_iter().flatten();
            again.extend(same.map(|one| Again { original: original.clone(), place: one.place }));
        }
    }
    again.retain(|one| !one.original.stands_at(one.place));
    if !again.is_empty() {
        let reasons: HashMap<Uuid, Option<Reason>> =
            again.iter().map(|one| (one.original.quarantine_id, one.original.reason)).collect();
        for (id, messages) in note_places(transaction, &again).await? {
            if let Some(reason) = reasons.get(&id).copied().flatten() {
                *kept.entry(reason).or_default() += messages;
            }
        }
    }
    Ok(kept)
}

/// Answers with the row of each, and whether it was made. Somebody else may have made it since it was looked for.
async fn insert(
    transaction: &mut PgConnection,
    new: &BTreeMap<Identity, Vec<Kept<'_>>>,
    room: &Room,
) -> Result<Vec<(Identity, Original, bool)>, sqlx::Error> {
    let identities: Vec<&[u8]> = new.keys().map(Identity::as_bytes).collect();
    let first: Vec<&Kept<'_>> = new.values().filter_map(|same| same.first()).collect();
    // They are listed by their ids: in the order in which they stand on the topic.
    let by_place: BTreeMap<TopicPlace<'_>, Uuid> =
        first.iter().map(|one| one.place).collect::<BTreeSet<_>>().into_iter().map(|at| (at, Uuid::now_v7())).collect();
    let ids: Vec<Uuid> = first.iter().filter_map(|one| by_place.get(&one.place).copied()).collect();
    let topics: Vec<&str> = first.iter().map(|one| one.place.topic).collect();
    let partitions: Vec<i32> = first.iter().map(|one| one.place.partition).collect();
    let offsets: Vec<i64> = first.iter().map(|one| one.place.offset).collect();
    let contents = room.fit(&mut *transaction, &first).await?;
    let keys: Vec<Option<&[u8]>> = contents.iter().map(|one| one.key()).collect();
    let values: Vec<Option<&[u8]>> = contents.iter().map(|one| one.value()).collect();
    let hashes: Vec<Option<&[u8]>> = contents.iter().map(Content::hash).collect();
    let ce_types: Vec<Option<&[u8]>> = contents.iter().map(|one| one.ce_type()).collect();
    let headers: Vec<Option<String>> = contents.iter().map(|one| one.headers()).collect();
    let reasons: Vec<&str> = first.iter().map(|one| one.why.reason.as_str()).collect();
    let details: Vec<&str> = first.iter().map(|one| one.why.detail.as_ref()).collect();
    let codes: Vec<Option<&str>> = first.iter().map(|one| Some(one.why.code.as_ref()?.as_str())).collect();
    let refs: Vec<Option<Uuid>> = first.iter().map(|one| one.why.message_ref).collect();
    let rows = sqlx::query!(
        r#"
        INSERT INTO quarantine AS known (identity, quarantine_id, topic, partition, "offset", key, value, ce_type,
            reason, detail, activity_type_code, message_ref, value_sha256, headers)
        SELECT identity, id, topic, partition, "offset", key, value, ce_type,
            -- a version of before reads words; reason_code is made of them
            replace(reason, '_', ' '), detail, code, message_ref, hash, headers
        FROM UNNEST($1::bytea[], $2::uuid[], $3::text[], $4::int[], $5::bigint[], $6::bytea[], $7::bytea[],
            $8::bytea[], $9::text[], $10::text[], $11::text[], $12::uuid[], $13::bytea[],
            $14::text[])
            AS new (identity, id, topic, partition, "offset", key, value, ce_type, reason, detail, code, message_ref, hash,
                headers)
        -- waits for whoever is making it right now, and keeps it as it is
        ON CONFLICT (identity) WHERE state <> 'counted' DO UPDATE SET identity = known.identity
        RETURNING identity, quarantine_id, reason_code, topic, partition, "offset", (xmax = 0) AS "is_new!"
        "#,
        &identities as _,
        &ids,
        &topics as _,
        &partitions,
        &offsets,
        &keys as _,
        &values as _,
        &ce_types as _,
        &reasons as _,
        &details as _,
        &codes as _,
        &refs as _,
        &hashes as _,
        &headers as _,
    );
    let rows = rows.fetch_all(transaction).await?.into_iter();
    let made = rows.filter_map(|row| {
        let original = Original::new(row.quarantine_id, &row.reason_code, row.topic, row.partition, row.offset);
        Some((Identity::parse(&row.identity)?, original, row.is_new))
    });
    Ok(made.collect())
}

/// Notes the places that are new; answers with their number, by row. The rows are locked, so nobody else is at
/// it: what is delivered again, to another instance for one, is not added twice.
async fn note_places(transaction: &mut PgConnection, again: &[Again<'_>]) -> Result<Vec<(Uuid, u64)>, sqlx::Error> {
    let ids: Vec<Uuid> = again.iter().map(|one| one.original.quarantine_id).collect();
    let topics: Vec<&str> = again.iter().map(|one| one.place.topic).collect();
    let partitions: Vec<i32> = again.iter().map(|one| one.place.partition).collect();
    let offsets: Vec<i64> = again.iter().map(|one| one.place.offset).collect();
    let noted = sqlx::query!(
        r#"
        WITH fresh AS (
            SELECT quarantine_id, topic, partition, max(place."offset") AS last_offset, count(*) AS messages
            FROM UNNEST($1::uuid[], $2::text[], $3::int[], $4::bigint[])
                AS place (quarantine_id, topic, partition, "offset")
            LEFT JOIN quarantine_copies AS known USING (quarantine_id, topic, partition)
            WHERE known.last_offset IS NULL OR place."offset" > known.last_offset
            GROUP BY quarantine_id, topic, partition
        ), noted AS (
            INSERT INTO quarantine_copies AS known (quarantine_id, topic, partition, last_offset, messages)
            SELECT quarantine_id, topic, partition, last_offset, messages FROM fresh
            ON CONFLICT (quarantine_id, topic, partition)
                DO UPDATE SET last_offset = excluded.last_offset, messages = known.messages + excluded.messages
        )
        SELECT quarantine_id AS "quarantine_id!", sum(messages)::bigint AS "messages!" FROM fresh GROUP BY quarantine_id
        "#,
        &ids,
        &topics as _,
        &partitions,
        &offsets,
    );
    let noted = noted.fetch_all(transaction).await?;
    Ok(noted.into_iter().map(|row| (row.quarantine_id, row.messages.unsigned_abs())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_as_it_is_written() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("unknown type"), Some(Reason::UnknownType));
        assert_eq!(Reason::parse("no-value"), None);
    }
}

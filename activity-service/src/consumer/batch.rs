//! Messages on their way from Kafka to the database: parsed, with their bytes still at hand.
//!
//! The bytes lie one after the other in one buffer. Of a message that is counted nobody needs them;
//! of one that Postgres refuses they go into quarantine.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::SystemTime,
};

use opentelemetry::{KeyValue, trace::SpanKind};
use rdkafka::message::{BorrowedMessage, Message as _};
use shared::runtime::{
    kafka,
    traces::{self, TraceContext},
};
use time::{Date, OffsetDateTime};

use super::{
    group::{AssignedPartition, Group},
    large::{Large, identities},
};
use crate::{
    activity::{self, Activity},
    headers, key,
    place::Partition,
    quarantine::{Content, Identities},
    record::{self, Digest, Raw},
    rejection::{Reason, Rejected},
    statistics::PositionAfter,
};

/// A batch is full at this many bytes, whatever the number of its messages. Three batches exist at
/// once (collected, handed over, counted), and each may exceed this by one message. Of a message that is larger
/// alone only hashes are held: a topic may permit messages of which three would not fit into the memory there is, and
/// whoever is killed by one reads it again. Kafka's own default permits half as much.
const MAX_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug, Default)]
pub struct Batch {
    pub messages: Vec<Message>,
    places: Vec<AssignedPartition>,
    /// The places before this one belong to an assignment that has changed since.
    current: usize,
    epoch: u64,
    bytes: Vec<u8>,
    /// The timestamp of the oldest message, in milliseconds since 1970.
    oldest: Option<i64>,
}

/// Messages of a place that follow one another.
#[derive(Debug)]
pub struct Run<'a> {
    pub place: &'a AssignedPartition,
    pub first: i64,
    /// The offset behind the last one.
    pub next: i64,
}

#[derive(Debug)]
pub struct Message {
    place: usize,
    pub offset: i64,
    pub parsed: Result<Activity, Rejected>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    ce_type: Option<Range<usize>>,
    headers: Range<usize>,
    large: Option<Box<Large>>,
    /// As Kafka has it, in milliseconds since 1970.
    timestamp: Option<i64>,
    /// When it was read, and the trace it belongs to; only where traces are exported.
    trace: Option<Box<(SystemTime, TraceContext)>>,
}

impl Batch {
    #[must_use]
    pub fn is_full(&self, max_messages: usize) -> bool {
        self.messages.len() >= max_messages || self.bytes.len() >= MAX_BYTES
    }

    /// Marks a message that Postgres refuses even alone. False where it was marked before: then not the message is to
    /// blame.
    pub fn reject(&mut self, index: usize, error: &sqlx::Error) -> bool {
        let message = &mut self.messages[index];
        let (code, message_ref) = match &message.parsed {
            Ok(activity) => (Some(activity.code.clone()), Some(activity.message_ref)),
            Err(rejected) if rejected.reason == Reason::NotStorable => return false,
            Err(rejected) => (rejected.code.clone(), rejected.message_ref),
        };
        let rejected = Rejected { code, message_ref, ..Rejected::by_the_database(error) };
        tracing::warn!(offset = message.offset, detail = %rejected.detail, "the database refuses a message");
        message.parsed = Err(rejected);
        true
    }

    /// The days that the keys of a part belong to.
    #[must_use]
    pub fn days(&self, part: &Range<usize>) -> BTreeSet<Date> {
        let activities = self.messages[part.clone()].iter().flat_map(|message| message.parsed.as_ref());
        key::days(activities.map(|activity| activity.message_ref))
    }

    pub fn push(&mut self, message: &BorrowedMessage<'_>, group: &Group) {
        let raw = Raw {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key(),
            value: message.payload(),
            ce_type: record::ce_type(message),
            timestamp: message.timestamp().to_millis(),
        };
        self.add(&raw, group);
        if let Some(last) = self.messages.last_mut() {
            if let Some(sent) = message.headers().filter(|_| last.large.is_none()) {
                headers::hold(sent, &mut self.bytes);
                last.headers.end = self.bytes.len();
            }
            last.trace = traces::are_exported().then(|| Box::new((SystemTime::now(), trace_of(message))));
        }
        self.oldest = self.oldest.into_iter().chain(raw.timestamp).min();
    }

    /// As [`Batch::push`], for a message from anywhere.
    pub fn add(&mut self, raw: &Raw<'_>, group: &Group) {
        let parsed = activity::parse(raw.value, raw.ce_type);
        let bytes: usize = [raw.key, raw.value, raw.ce_type].iter().flatten().map(|part| part.len()).sum();
        let large = (bytes > MAX_BYTES).then(|| Box::new(Large::new(raw, &parsed)));
        let held = |part| if large.is_some() { None } else { part };
        let [key, value, ce_type] = [raw.key, raw.value, raw.ce_type].map(held);
        let message = Message {
            place: self.place(raw.topic, raw.partition, group),
            offset: raw.offset,
            parsed,
            key: self.store(key),
            value: self.store(value),
            ce_type: self.store(ce_type),
            headers: self.bytes.len()..self.bytes.len(),
            large,
            timestamp: raw.timestamp,
            trace: None,
        };
        self.messages.push(message);
    }

    /// The spans of its messages, which end here.
    pub fn trace(&self) {
        for message in &self.messages {
            let Some((read_at, context)) = message.trace.as_deref() else { continue };
            let place = self.place_of(message);
            let attributes = [
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.destination.name", place.topic.clone()),
                KeyValue::new("messaging.destination.partition.id", i64::from(place.partition)),
                KeyValue::new("messaging.kafka.offset", message.offset),
            ];
            traces::message("count", SpanKind::Consumer, *read_at, &attributes, || context.clone());
        }
    }

    /// When the oldest message was sent, by the timestamps that Kafka has.
    #[must_use]
    pub fn oldest(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.oldest?) * 1_000_000).ok()
    }

    #[must_use]
    pub fn place_of(&self, message: &Message) -> &AssignedPartition {
        &self.places[message.place]
    }

    /// Its key, value and `ce_type`, as far as they are held.
    fn parts(&self, message: &Message) -> [Option<&[u8]>; 3] {
        [&message.key, &message.value, &message.ce_type].map(|part| Some(&self.bytes[part.clone()?]))
    }

    #[must_use]
    pub fn content(&self, message: &Message) -> Content<'_> {
        let [key, value, ce_type] = self.parts(message);
        let whole = Content::Whole { key, value, ce_type, headers: &self.bytes[message.headers.clone()] };
        message.large.as_ref().map_or(whole, |large| Content::TooLarge(large.value_sha256))
    }

    /// Under what it may be in quarantine.
    #[must_use]
    pub fn identities(&self, message: &Message) -> Identities {
        let [key, value, ce_type] = self.parts(message);
        let of_held = || identities(&message.parsed, key, value, ce_type);
        message.large.as_ref().map_or_else(of_held, |large| large.identities)
    }

    /// What is to be read next of each place once `part` is counted. Within a place the messages
    /// stand in the order of their offsets.
    #[must_use]
    pub fn ends(&self, part: &Range<usize>) -> Vec<(&AssignedPartition, i64)> {
        self.lasts(part).map(|(place, last)| (place, last.offset + 1)).collect()
    }

    /// The positions that follow from `part`: of what comes from partitions that were this member's.
    #[must_use]
    pub fn positions(&self, part: &Range<usize>) -> Vec<PositionAfter<'_>> {
        let lasts = self.lasts(part).filter_map(|(place, last)| Some((place, place.tenure?, last)));
        let positions = lasts.map(|(place, tenure, last)| PositionAfter {
            topic: &place.topic,
            partition: place.partition,
            generation: tenure.generation,
            next_offset: last.offset + 1,
            digest: self.digest(last),
        });
        positions.collect()
    }

    /// How many messages of each partition are in `part`.
    #[must_use]
    pub fn counts(&self, part: Range<usize>) -> BTreeMap<Partition, usize> {
        let mut of_places = vec![0; self.places.len()];
        for message in &self.messages[part] {
            of_places[message.place] += 1;
        }
        let mut counts = BTreeMap::new();
        for (place, count) in self.places.iter().zip(of_places).filter(|(_, count)| *count > 0) {
            *counts.entry(place.partition()).or_default() += count;
        }
        counts
    }

    fn lasts(&self, part: &Range<usize>) -> impl Iterator<Item = (&AssignedPartition, &Message)> {
        let mut last = vec![None; self.places.len()];
        for message in &self.messages[part.clone()] {
            last[message.place] = Some(message);
        }
        self.places.iter().zip(last).filter_map(|(place, last)| Some((place, last?)))
    }

    fn digest(&self, message: &Message) -> Digest {
        let [key, value, ce_type] = self.parts(message);
        let of_held = || record::digest(message.timestamp, key, value, ce_type);
        message.large.as_ref().map_or_else(of_held, |large| large.digest)
    }

    /// What follows one another in `part`, place by place. One offset that is missing does not end a run: it may be the
    /// marker of a transaction.
    #[must_use]
    pub fn runs(&self, part: &Range<usize>) -> Vec<Run<'_>> {
        let (mut runs, mut current) = (Vec::<Run<'_>>::new(), vec![None; self.places.len()]);
        for message in &self.messages[part.clone()] {
            let next = message.offset + 1;
            match current[message.place].map(|index: usize| &mut runs[index]) {
                Some(run) if message.offset <= run.next + 1 => run.next = next.max(run.next),
                _ => {
                    current[message.place] = Some(runs.len());
                    runs.push(Run { place: &self.places[message.place], first: message.offset, next });
                }
            }
        }
        runs
    }

    /// The first message of each place in `part`.
    #[must_use]
    pub fn starts(&self, part: &Range<usize>) -> Vec<(&AssignedPartition, i64)> {
        let mut first = vec![None; self.places.len()];
        for message in &self.messages[part.clone()] {
            first[message.place].get_or_insert(message.offset);
        }
        self.places.iter().zip(first).filter_map(|(place, first)| first.map(|first| (place, first))).collect()
    }

    fn place(&mut self, topic: &str, partition: i32, group: &Group) -> usize {
        if self.epoch != group.epoch() {
            self.epoch = group.epoch();
            self.current = self.places.len();
        }
        let known =
            self.places[self.current..].iter().position(|place| place.partition == partition && place.topic == topic);
        known.map_or_else(
            || {
                self.places.push(AssignedPartition {
                    topic: topic.to_owned(),
                    partition,
                    tenure: group.tenure(topic, partition),
                });
                self.places.len() - 1
            },
            |index| self.current + index,
        )
    }

    fn store(&mut self, bytes: Option<&[u8]>) -> Option<Range<usize>> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes?);
        Some(start..self.bytes.len())
    }
}

fn trace_of(message: &BorrowedMessage<'_>) -> TraceContext {
    let header = |name: &str| {
        let found = kafka::headers(message.headers()?).find(|header| header.key == name)?;
        Some(std::str::from_utf8(found.value?).ok()?.to_owned())
    };
    TraceContext::new(header("traceparent"), header("tracestate"))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::quarantine::Identity;

    #[test]
    fn ends_follow_the_last_message_of_each_partition_in_the_part() {
        let (group, mut batch) = (Group::default(), Batch::default());
        for (partition, offset) in [(0, 7), (1, 3), (0, 8), (1, 5), (0, 12)] {
            let raw =
                Raw { topic: "t", partition, offset, key: None, value: Some(b"x"), ce_type: None, timestamp: None };
            batch.add(&raw, &group);
        }
        let ends =
            |part| batch.ends(&part).into_iter().map(|(place, next)| (place.partition, next)).collect::<Vec<_>>();
        assert_eq!(ends(0..5), [(0, 13), (1, 6)]);
        assert_eq!(ends(0..3), [(0, 9), (1, 4)]);
        assert_eq!(ends(3..4), [(1, 6)]);
        assert_eq!(batch.counts(1..5), [(Partition::new("t", 0), 2), (Partition::new("t", 1), 2)].into());
        let starts = batch.starts(&(1..5)).into_iter().map(|(place, first)| (place.partition, first));
        assert_eq!(starts.collect::<Vec<_>>(), [(0, 8), (1, 3)]);
        assert_eq!(batch.parts(&batch.messages[4]), [None, Some(&b"x"[..]), None]);
    }

    #[test]
    fn a_message_larger_than_a_batch_is_recognised_like_any_other_and_its_bytes_are_not_held() {
        let (group, value) = (Group::default(), vec![b'x'; MAX_BYTES]);
        let raw = |key, timestamp| Raw {
            topic: "t",
            partition: 0,
            offset: 7,
            key,
            value: Some(&value),
            ce_type: None,
            timestamp,
        };
        let mut batch = Batch::default();
        batch.add(&raw(None, None), &group);
        assert_eq!(batch.bytes.len(), MAX_BYTES, "just fits");
        batch.add(&raw(Some(b"k"), Some(5)), &group);
        assert_eq!(batch.bytes.len(), MAX_BYTES);
        let message = &batch.messages[1];
        let hash: [u8; 32] = Sha256::digest(&value).into();
        assert!(matches!(batch.content(message), Content::TooLarge(of_value) if of_value == hash));
        assert_eq!(batch.identities(message).unread, Identity::of_unread(Some(b"k"), None, Some(&value)));
        assert_eq!(batch.digest(message), record::digest(Some(5), Some(b"k"), Some(&value), None));
    }
}

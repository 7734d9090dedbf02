//! How much of its partitions this instance has still to count: what the broker has, less what is
//! counted. Asked of the broker and not of the client, which knows nothing of what it does not fetch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::runtime::{health::TaskStatus, lifecycle::Shutdown, metrics::Gauge};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::{
    group::{Group, Reached},
    watermarks::{Broker, Span, Watermarks},
};
use crate::{
    metrics::{BEHIND_OPEN, LAG_MESSAGES, LAG_SECONDS, LAG_UNKNOWN, UNREAD},
    place::Partition,
};

/// So long an open transaction may hide messages before that is told: as long as most may take.
const OPEN_FOR: Duration = Duration::from_secs(30);

/// Of a partition that stands still for longer it is found out whether there are messages.
const LOOKED_INTO_AFTER: Duration = Duration::from_secs(5);

/// A partition that stands still for longer is named: a broker that refuses the reading of one topic says so once.
const STANDS_FOR: Duration = Duration::from_secs(15);

/// Of thousands of partitions so many are named.
const NAMED: usize = 3;

/// Partitions are asked of one by one: thousands of them take a while.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Lag {
    pub broker: Broker,
    pub group: Arc<Group>,
    pub every: Duration,
    pub seen: BTreeMap<Partition, Seen>,
    /// Behind what is counted of a partition no message stands, but what belongs to transactions. By its statistics the
    /// client is through with it only once it is with all the others.
    pub empty: BTreeMap<Partition, Span>,
}

/// A partition at the looks so far.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    next: i64,
    /// Since when the same is to be counted next while something is.
    waits_since: Option<Instant>,
    stable: i64,
    /// Since when the same transaction hides messages.
    open_since: Option<Instant>,
    is_told: bool,
}

/// What is still to be counted of the partitions that could be asked.
#[derive(Debug, Default)]
struct Backlog {
    messages: u64,
    behind_open: u64,
    unread: Duration,
    unknown: Vec<String>,
    standing: Vec<String>,
}

impl Lag {
    /// Asks now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(mut self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        while !shutdown.is_draining() {
            match shutdown.unless_draining(status.busy(ANSWERS_WITHIN, self.look())).await {
                Some(Ok(found)) => {
                    set_gauges(&found);
                    match found.trouble() {
                        None => status.ok(),
                        Some(trouble) => drop(status.waiting(trouble)),
                    }
                }
                // Whoever reads tells of the outage.
                Some(Err(error)) => {
                    // None of it is known now.
                    [LAG_MESSAGES, LAG_UNKNOWN, BEHIND_OPEN, UNREAD].iter().for_each(Gauge::forget);
                    status.waiting(format!("{error:#}"));
                }
                None => {}
            }
            shutdown.unless_draining(sleep(self.every)).await;
        }
        Ok(())
    }

    async fn look(&mut self) -> anyhow::Result<Backlog> {
        let assigned = self.group.assigned();
        if assigned.is_empty() {
            self.seen.clear();
            return Ok(Backlog::default());
        }
        // Of what is not read yet it is not known where reading begins; the group's offset is the best guess.
        let committed = self.broker.committed(assigned.clone()).await?;
        fail::fail_point!("lag::asked");
        let asked = self.broker.each(assigned).await?;
        let reached = self.group.reached();
        self.pass_empty(&reached);
        let (mut found, mut seen, mut stand) = (Backlog::default(), BTreeMap::new(), BTreeSet::new());
        for (partition, marks) in asked {
            let marks = match marks {
                Ok(marks) => marks,
                Err(why) => {
                    found.unknown.push(format!("partition {} of {}: {why}", partition.number, partition.topic));
                    continue;
                }
            };
            let next = reached.get(&partition).map(|one| one.next_offset);
            let next = next.or_else(|| committed.get(&partition).copied()).unwrap_or(marks.low).max(marks.low);
            let is_empty = self.empty.get(&partition).is_some_and(|span| span.to >= marks.stable);
            let waiting = if is_empty || self.group.fetching.is_through(&partition, marks.stable) {
                0
            } else {
                (marks.stable - next).max(0).unsigned_abs()
            };
            let now = self.seen.get(&partition).copied().unwrap_or(Seen::new(next, marks.stable));
            let now = now.then(next, waiting > 0, marks);
            found.messages += waiting;
            let unread = now.waits_since.map_or(Duration::ZERO, |since| since.elapsed());
            found.unread = found.unread.max(unread);
            if unread >= LOOKED_INTO_AFTER {
                stand.insert(Span { partition: partition.clone(), from: next, to: marks.stable });
            }
            if unread >= STANDS_FOR {
                found.standing.push(standing(&partition, waiting.cast_signed(), unread));
            }
            if now.open_since.is_some_and(|since| since.elapsed() >= OPEN_FOR) {
                found.behind_open += (marks.high - marks.stable).unsigned_abs();
            }
            seen.insert(partition.clone(), now.told(&partition, marks));
        }
        self.seen = seen;
        let looked_into = self.broker.have_messages(stand).await?.into_iter();
        let empty = looked_into.filter(|(_, has_messages)| !has_messages).map(|(span, _)| span);
        self.empty.extend(empty.map(|span| (span.partition.clone(), span)));
        Ok(found)
    }

    /// Forgets what is empty of partitions of which something was counted since.
    fn pass_empty(&mut self, reached: &BTreeMap<Partition, Reached>) {
        self.empty.retain(|partition, span| reached.get(partition).is_some_and(|one| one.next_offset == span.from));
    }
}

impl Backlog {
    /// What keeps partitions from being counted or asked, as far as it shows here.
    fn trouble(&self) -> Option<String> {
        let all: Vec<_> = self.unknown.iter().chain(&self.standing).map(String::as_str).collect();
        let more = all.len().saturating_sub(NAMED);
        let named = all.get(..NAMED).unwrap_or(&all).join("; ");
        (!all.is_empty()).then(|| if more == 0 { named } else { format!("{named}; and {more} more partitions") })
    }
}

impl Seen {
    fn new(next: i64, stable: i64) -> Self {
        Self { next, waits_since: None, stable, open_since: None, is_told: false }
    }

    fn then(self, next: i64, waits: bool, marks: Watermarks) -> Self {
        let since = |goes_on: bool, before: Option<Instant>| goes_on.then(|| before.unwrap_or_else(Instant::now));
        let is_same = self.stable == marks.stable;
        Self {
            next,
            waits_since: since(waits, self.waits_since.filter(|_| self.next == next)),
            stable: marks.stable,
            open_since: since(marks.high > marks.stable, self.open_since.filter(|_| is_same)),
            is_told: self.is_told && is_same,
        }
    }

    /// Says once that a transaction hides messages.
    fn told(mut self, Partition { topic, number }: &Partition, marks: Watermarks) -> Self {
        if !self.is_told && self.open_since.is_some_and(|since| since.elapsed() >= OPEN_FOR) {
            self.is_told = true;
            tracing::warn!(
                messaging.destination.name = topic,
                messaging.destination.partition.id = number,
                offset = marks.stable,
                offsets = marks.high - marks.stable,
                "messages wait behind an open transaction of another producer"
            );
        }
        self
    }
}

/// What is said of a partition that stands still.
pub(super) fn standing(Partition { topic, number }: &Partition, waiting: i64, unread: Duration) -> String {
    let since = unread.as_secs();
    format!("partition {number} of {topic}: {waiting} messages wait, and none was counted for {since} s")
}

fn set_gauges(found: &Backlog) {
    // A sum without some of its parts would look like progress.
    if found.unknown.is_empty() {
        LAG_MESSAGES.set_count(found.messages);
    } else {
        LAG_MESSAGES.forget();
    }
    LAG_UNKNOWN.set_count(found.unknown.len() as u64);
    BEHIND_OPEN.set_count(found.behind_open);
    UNREAD.set(found.unread.as_secs_f64());
}

/// The oldest message that is being counted: what came later waits behind it.
#[derive(Clone, Debug, Default)]
pub struct InHand(Arc<Mutex<Option<OffsetDateTime>>>);

impl InHand {
    /// Notes when the oldest message was sent of what is being counted now, if anything is.
    pub fn note(&self, oldest: Option<OffsetDateTime>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    /// How old it is.
    pub fn gauge(&self) -> impl Fn() + Send + Sync + use<> {
        let Self(oldest) = self.clone();
        move || {
            let oldest = *oldest.lock().unwrap_or_else(PoisonError::into_inner);
            LAG_SECONDS.set(oldest.map_or(0.0, seconds_since));
        }
    }
}

/// By this machine's clock and Kafka's; never negative.
pub fn seconds_since(sent: OffsetDateTime) -> f64 {
    (OffsetDateTime::now_utc() - sent).as_seconds_f64().max(0.0)
}

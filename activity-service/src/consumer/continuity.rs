//! Whether the topic still follows what was read from it, and where reading begins. Messages can be deleted before
//! anybody read them; a topic can be deleted and created anew under its name; and Kafka's offsets of the group can be
//! ahead of a database that was restored. What is still there is read, what is not is a gap, and each is told. And
//! whether Kafka has the offsets it was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use shared::runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown};
use tokio::time::sleep;

use super::{
    group::{Beginning, Group, Reached},
    lag::ANSWERS_WITHIN,
    positions::{self, Position},
    watermarks::{Broker, Records, Span, Watermarks},
};
use crate::{
    gaps::{self, Unchecked},
    metrics::{CREATED_ANEW, OFFSETS_AHEAD},
    place::{Jump, Partition},
};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Doubts are looked at at once, but not more often: holes in a topic cause many. So is a partition whose
/// beginning could not be found out.
const DOUBTS_EVERY: Duration = Duration::from_secs(1);
/// Gaps that are looked into at one look: each takes a question to a broker, and the next look waits.
const LOOKED_AT_ONCE: usize = 100;
/// Gaps that are remembered to have been read once more.
const REMEMBERED: usize = 10_000;

#[derive(Debug)]
pub struct Continuity {
    pub pool: Pool,
    pub broker: Broker,
    pub group: Arc<Group>,
    pub status: TaskStatus,
    /// Positions below the low watermark at the last look.
    pub behind: BTreeMap<Partition, i64>,
    /// From where on was read once more what had been jumped over.
    pub read_again: BTreeSet<(Partition, i64)>,
}

/// What a look found of the partitions of this member.
#[derive(Debug)]
struct Found {
    reached: BTreeMap<Partition, Reached>,
    positions: BTreeMap<Partition, Position>,
    marks: BTreeMap<Partition, Watermarks>,
    /// Why others have none.
    unasked: BTreeMap<Partition, String>,
    /// The records that were looked for, as they stand there now.
    records: Records,
    gaps: Vec<Unchecked>,
}

/// What a partition is to the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TopicMatch {
    Same,
    Another,
    /// The broker has not shown the record that tells.
    Unknown,
}

impl Continuity {
    /// Looks now and then until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again the next time.
    pub async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        while !shutdown.is_draining() {
            let status = self.status.clone();
            match shutdown.unless_draining(status.busy(ANSWERS_WITHIN, self.look())).await {
                Some(Err(error)) => {
                    let news = self.status.waiting(format!("{error:#}"));
                    // Else whoever reads and counts tells of the outage.
                    if news && !self.group.held().is_empty() {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "cannot find out where to begin reading; trying again"
                        );
                    }
                }
                Some(Ok(())) => self.status.ok(),
                None => {}
            }
            let group = Arc::clone(&self.group);
            let next = async {
                let doubts = async {
                    sleep(DOUBTS_EVERY).await;
                    if group.held().is_empty() {
                        tokio::select! {
                            () = sleep(LOOK_EVERY.saturating_sub(DOUBTS_EVERY)) => {}
                            () = group.doubt.notified() => {}
                        }
                    }
                };
                tokio::select! {
                    () = doubts => {}
                    () = group.is_held.notified() => {}
                }
            };
            shutdown.unless_draining(next).await;
        }
        Ok(())
    }

    /// One look at the partitions of this member.
    ///
    /// # Errors
    /// The database or the broker does not answer, or one does not show where reading begins.
    pub async fn look(&mut self) -> anyhow::Result<()> {
        let owed = self.group.owed();
        if !owed.is_empty() {
            self.group.stored(&self.broker.committed(owed).await?);
        }
        let gone_back = self.group.take_gone_back();
        let done = self.compare(&gone_back).await;
        if done.is_err() {
            self.group.have_gone_back(gone_back);
        }
        match done? {
            Some(unknown) => anyhow::bail!(unknown),
            None => Ok(()),
        }
    }

    /// Of a held partition of which it does not find out where reading begins, the first of them, it says why.
    async fn compare(&mut self, gone_back: &BTreeSet<Partition>) -> anyhow::Result<Option<String>> {
        let assigned = self.group.assigned();
        if assigned.is_empty() {
            return Ok(None);
        }
        let held = self.group.held();
        // Kafka is told after the database, so it is asked before: then it is not ahead by what is counted now.
        let committed = match held.as_slice() {
            [] => BTreeMap::new(),
            held => self.broker.committed(held.to_vec()).await?,
        };
        let found = self.find(assigned).await?;
        self.look_for_losses(&found).await?;
        let mut behind = BTreeMap::new();
        let mut unknown = held.iter().find_map(|partition| found.why_unasked(partition));
        for (partition, marks) in &found.marks {
            let Some(position) = found.positions.get(partition) else {
                if held.contains(partition) {
                    self.begin(partition, None, committed.get(partition).copied(), *marks);
                }
                if marks.low == marks.high && marks.low > 0 && !self.group.fetching.has_under_way(partition) {
                    let jump = Jump { expected: 0, came: marks.low };
                    if !self.behind.contains_key(partition) {
                        behind.insert(partition.clone(), jump.expected);
                    } else if positions::begin_emptied(&self.pool, partition, jump).await? {
                        self.lost(partition, jump);
                    }
                }
                continue;
            };
            match found.identity(partition, position, *marks, gone_back.contains(partition)) {
                TopicMatch::Unknown => {
                    if held.contains(partition) {
                        unknown.get_or_insert_with(|| found.why_unknown(partition));
                    }
                    continue;
                }
                TopicMatch::Another => {
                    if positions::begin_anew(&self.pool, partition, position.generation, marks.low).await? {
                        self.created_anew(partition, position.next_offset);
                    }
                    // Whoever has set the position back: the next look finds where it begins.
                    self.group.hold(partition, position.generation);
                    self.group.is_held.notify_one();
                    continue;
                }
                TopicMatch::Same => {}
            }
            if let Some(last) = position.last.as_ref().filter(|last| position.seen.as_ref() != Some(last)) {
                positions::is_the_same(&self.pool, partition, position.generation, last).await?;
            }
            if let Some(told_end) = position.told_end {
                positions::is_not_doubted(&self.pool, partition, position.generation, told_end).await?;
            }
            if marks.low > position.next_offset && !self.group.fetching.has_under_way(partition) {
                // At the second look, for what was read in time may be in the client at the first.
                let jump = Jump { expected: position.next_offset, came: marks.low };
                if self.behind.get(partition) != Some(&position.next_offset) {
                    behind.insert(partition.clone(), position.next_offset);
                } else if positions::pass(&self.pool, partition, jump).await? {
                    self.lost(partition, jump);
                }
            }
            if held.contains(partition) {
                self.begin(partition, Some(position), committed.get(partition).copied(), *marks);
            }
        }
        self.behind = behind;
        self.check(&found).await?;
        self.outdated(&found);
        Ok(unknown)
    }

    /// Holds the partitions of which the database has lost what it had counted.
    async fn look_for_losses(&self, found: &Found) -> anyhow::Result<()> {
        for (partition, reached) in &found.reached {
            if reached.is_lost_by(found.positions.get(partition)) {
                let mut connection = self.pool.acquire().await?;
                let noted = positions::are_lost(&mut connection, partition, *reached).await;
                connection.end_with(&noted);
                if noted? {
                    have_lost(partition, *reached);
                }
                self.group.hold(partition, reached.generation);
                self.group.is_held.notify_one();
            }
        }
        Ok(())
    }

    async fn find(&self, assigned: Vec<Partition>) -> anyhow::Result<Found> {
        // Read before the positions are: those only grow.
        let reached = self.group.reached();
        // Read before the watermarks are: those of the same topic only grow.
        let mut connection = self.pool.acquire().await?;
        let positions = positions::of(&mut connection, &assigned).await?;
        let gaps = gaps::unchecked(&mut connection, &assigned).await?;
        connection.end();
        let (mut marks, mut unasked) = (BTreeMap::new(), BTreeMap::new());
        for (partition, asked) in self.broker.each(assigned).await? {
            match asked {
                Ok(found) => drop(marks.insert(partition, found)),
                Err(why) => drop(unasked.insert(partition, why)),
            }
        }
        let wanted = positions.iter().filter_map(|(partition, position)| {
            let marks = marks.get(partition)?;
            // Where there are fewer messages than were read no record has to tell.
            let record = position.evidence(marks.low).filter(|_| position.next_offset <= marks.high)?;
            Some((partition.clone(), record.offset))
        });
        let records = self.broker.records(wanted.collect()).await?;
        Ok(Found { reached, positions, marks, unasked, records, gaps })
    }

    /// Says where the reading of a held partition begins: where the database is, or Kafka is if that is before.
    fn begin(&self, partition: &Partition, position: Option<&Position>, committed: Option<i64>, marks: Watermarks) {
        let next = position.map_or(marks.low, |position| position.next_offset);
        let generation = position.map_or(0, |position| position.generation);
        let offset = committed.map_or(marks.low, |committed| committed.min(next)).max(marks.low);
        // Kafka's is still that of the topic before, until something of the new one is counted.
        let is_new = position.is_some_and(|position| generation > 0 && position.last.is_none());
        if let Some(committed) = committed.filter(|committed| *committed > next && !is_new) {
            OFFSETS_AHEAD.add(1);
            let Partition { topic, number } = partition;
            tracing::error!(
                messaging.destination.name = topic,
                messaging.destination.partition.id = number,
                position = next,
                committed,
                "the group's offsets are ahead of the database"
            );
        }
        let position = position.map_or(0, |position| position.next_offset);
        self.group.begin(partition, Beginning { offset, generation, position });
    }

    /// Finds out of how much of the gaps the topic has lost, and forgets those that are holes.
    async fn check(&mut self, found: &Found) -> anyhow::Result<()> {
        let mut still_there = Vec::new();
        for gap in &found.gaps {
            let Some(marks) = found.marks.get(&gap.partition) else { continue };
            match gap.jump.lost_to(marks.low) {
                None => still_there.push(gap),
                Some(to) if gaps::open(&self.pool, gap.id, to).await? => {
                    self.lost(&gap.partition, Jump { came: to, ..gap.jump });
                }
                Some(_) => {}
            }
        }
        still_there.truncate(LOOKED_AT_ONCE);
        self.look_into(&still_there).await
    }

    /// The topic has these offsets. Where messages stand there they are read, and what was counted is counted once; the
    /// others are holes, of compaction and of transactions.
    async fn look_into(&mut self, gaps: &[&Unchecked]) -> anyhow::Result<()> {
        let span = |gap: &Unchecked| {
            let Jump { expected: from, came: to } = gap.jump;
            Span { partition: gap.partition.clone(), from, to }
        };
        let has_messages = self.broker.have_messages(gaps.iter().map(|gap| span(gap)).collect()).await?;
        let mut holes = Vec::new();
        for gap in gaps {
            match has_messages.get(&span(gap)) {
                None => {}
                Some(false) => holes.push(gap.id),
                Some(true) => self.read_once_more(gap).await?,
            }
        }
        gaps::forget(&self.pool, &holes).await?;
        Ok(())
    }

    /// Messages stand in it. Where they are jumped over again the client cannot read them, and they are lost.
    async fn read_once_more(&mut self, gap: &Unchecked) -> anyhow::Result<()> {
        let Jump { expected, came } = gap.jump;
        if self.read_again.len() >= REMEMBERED {
            self.read_again.clear();
        }
        if !self.read_again.insert((gap.partition.clone(), expected)) {
            if gaps::open(&self.pool, gap.id, came).await? {
                self.lost(&gap.partition, gap.jump);
            }
        } else if positions::go_back(&self.pool, gap).await? {
            let Partition { topic, number } = &gap.partition;
            tracing::error!(
                messaging.destination.name = topic,
                messaging.destination.partition.id = number,
                from = expected,
                to = came,
                "messages were jumped over: they are read again"
            );
        }
        Ok(())
    }

    /// Holds what is read as though it were a partition that it is not any more.
    fn outdated(&self, found: &Found) {
        for (partition, generation) in self.group.generations() {
            let position = found.positions.get(&partition);
            // A smaller one was read before reading began here.
            if position.is_some_and(|position| position.generation > generation) {
                self.group.hold(&partition, generation);
            }
        }
    }

    fn created_anew(&self, partition: &Partition, position: i64) {
        CREATED_ANEW.add(1);
        let Partition { topic, number } = partition;
        let news = format!("partition {number} of {topic} was created anew: it was read up to {position}");
        tracing::error!(
            messaging.destination.name = topic,
            messaging.destination.partition.id = number,
            position,
            "the topic was created anew"
        );
        self.status.waiting(news);
    }

    fn lost(&self, partition: &Partition, gap: Jump) {
        let Partition { topic, number } = partition;
        let messages = gap.came - gap.expected;
        let news = format!("{messages} messages of partition {number} of {topic} were deleted unread");
        tracing::error!(
            messaging.destination.name = topic,
            messaging.destination.partition.id = number,
            from = gap.expected,
            to = gap.came,
            messages,
            "messages were deleted before they were read"
        );
        self.status.waiting(news);
    }
}

impl Found {
    fn identity(&self, partition: &Partition, position: &Position, marks: Watermarks, gone_back: bool) -> TopicMatch {
        if marks.high < position.next_offset || gone_back {
            return TopicMatch::Another;
        }
        // Where nothing that was counted can be read any more there is nothing to tell by; if it is another topic,
        // what it has lost is a gap.
        let Some(record) = position.evidence(marks.low) else {
            return TopicMatch::Same;
        };
        match self.records.found.get(partition) {
            None => TopicMatch::Unknown,
            Some(found) if record.is(found.as_ref()) => TopicMatch::Same,
            Some(_) => TopicMatch::Another,
        }
    }

    fn why_unasked(&self, partition: &Partition) -> Option<String> {
        let why = self.unasked.get(partition)?;
        let Partition { topic, number } = partition;
        Some(format!("partition {number} of {topic} cannot be asked: {why}"))
    }

    fn why_unknown(&self, Partition { topic, number }: &Partition) -> String {
        let why = self.records.failure.as_ref().map_or_else(|| "no answer in time".to_owned(), ToString::to_string);
        format!("the last record read of partition {number} of {topic} does not come: {why}")
    }
}

/// Tells that the database is not as far any more.
pub fn have_lost(Partition { topic, number }: &Partition, reached: Reached) {
    tracing::error!(
        messaging.destination.name = topic,
        messaging.destination.partition.id = number,
        counted = reached.next_offset,
        "the database has lost what it had counted: it is read again"
    );
}

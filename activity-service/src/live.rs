//! What streams are told: one look at the figures for all streams of this instance, however many there are. Recent
//! days, on which nearly everything is counted, are looked at twice a second, all others that a stream has asked
//! for as often as metrics are. While there is no stream nothing is asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::runtime::{database::Pool, health::TaskStatus, lifecycle::Shutdown};
use time::Date;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};

use crate::{
    completeness::{self, Completeness},
    statistics,
};

mod day;
mod range;

pub use day::LiveDay;

/// Figures change at most twice a second for whoever looks at them.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Every so many looks all days are looked at, which is as often as metrics are.
const ALL_EVERY: u64 = 10;
/// Every so many looks it is asked how complete they are: sources tell once a second.
const COMPLETENESS_EVERY: u64 = 2;
/// An outage is one then: streams end, and callers who ask again are told.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The streams of this instance, and what they are told.
#[derive(Debug)]
pub struct Live {
    pool: Pool,
    topics: Vec<String>,
    time_zone: String,
    room: Arc<Semaphore>,
    asked: Mutex<Asked>,
    joined: Notify,
    looks: watch::Sender<Look>,
}

/// From the first to the last, both included.
pub type Range = (Date, Date);

/// What streams have asked for.
#[derive(Debug, Default)]
struct Asked {
    next: u64,
    ranges: BTreeMap<u64, Range>,
    /// A range is new since the last look began.
    has_new: bool,
    /// Looks that have begun.
    begun: u64,
}

/// One look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    number: u64,
    /// None: the database did not answer.
    pub found: Option<Arc<LiveFigures>>,
}

/// The days that were asked for, and how complete they are.
#[derive(Debug)]
pub struct LiveFigures {
    pub days: BTreeMap<Date, Arc<LiveDay>>,
    pub completeness: Arc<Completeness>,
}

/// One stream. Its days are looked at until it is dropped.
#[derive(Debug)]
pub struct Follower {
    live: Arc<Live>,
    number: u64,
    pub range: Range,
    /// Looks up to here may have missed its days.
    after: u64,
    looks: watch::Receiver<Look>,
    _room: OwnedSemaphorePermit,
}

impl Live {
    /// For at most `most` streams.
    #[must_use]
    pub fn new(pool: Pool, topics: Vec<String>, time_zone: String, most: u32) -> Arc<Self> {
        let (asked, joined, (looks, _)) = (Mutex::default(), Notify::new(), watch::channel(Look::default()));
        let room = Arc::new(Semaphore::new(most as usize));
        Arc::new(Self { pool, topics, time_zone, room, asked, joined, looks })
    }

    /// A stream of the days of `range`; none where there are as many as there may be.
    #[must_use]
    pub fn join(self: &Arc<Self>, range: Range) -> Option<Follower> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let mut asked = self.asked();
        asked.next += 1;
        asked.has_new = true;
        let (number, after) = (asked.next, asked.begun);
        asked.ranges.insert(number, range);
        drop(asked);
        self.joined.notify_one();
        Some(Follower { live: Arc::clone(self), number, range, after, looks: self.looks.subscribe(), _room: room })
    }

    /// How many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.asked().ranges.len()
    }

    /// Looks while there are streams, until the drain begins.
    ///
    /// # Errors
    /// None: streams end where the database is out of reach.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        let mut known: Option<Known> = None;
        status.ok();
        while !shutdown.is_draining() {
            let begun = Instant::now();
            let Some((number, ranges, is_new)) = self.begin() else {
                known = None;
                shutdown.unless_draining(self.joined.notified()).await;
                continue;
            };
            let found = status.busy(ANSWER_WITHIN, self.look(&mut known, &ranges, number, is_new)).await;
            match &found {
                Ok(_) => status.ok(),
                Err(error) => {
                    known = None;
                    status.failing(error, "cannot look at the figures for streams: they end");
                }
            }
            self.looks.send_replace(Look { number, found: found.ok().map(Arc::new) });
            shutdown.unless_draining(sleep_until(begun + LOOK_EVERY)).await;
        }
        Ok(())
    }

    /// The number of the next look, what it is to look at, and whether some of that is new; none without streams.
    fn begin(&self) -> Option<(u64, Vec<Range>, bool)> {
        let mut asked = self.asked();
        if asked.ranges.is_empty() {
            return None;
        }
        asked.begun += 1;
        let is_new = std::mem::take(&mut asked.has_new);
        Some((asked.begun, range::merged(asked.ranges.values().copied()), is_new))
    }

    async fn look(
        &self,
        known: &mut Option<Known>,
        ranges: &[Range],
        number: u64,
        is_new: bool,
    ) -> Result<LiveFigures, sqlx::Error> {
        let all = known.take().filter(|_| !is_new && !number.is_multiple_of(ALL_EVERY));
        let mut next = match all {
            Some(known) => {
                let recent = range::within(ranges, known.recent);
                self.looked_at(known, &recent).await?
            }
            None => {
                let today = statistics::today(&self.pool, &self.time_zone).await?;
                let completeness = Arc::new(completeness::of(&self.pool, &self.topics).await?);
                let recent = (today.previous_day().unwrap_or(today), today.next_day().unwrap_or(today));
                let known = Known { days: BTreeMap::new(), recent, completeness };
                self.looked_at(known, ranges).await?
            }
        };
        if number.is_multiple_of(COMPLETENESS_EVERY) {
            next.completeness = Arc::new(completeness::of(&self.pool, &self.topics).await?);
        }
        let found = LiveFigures { days: next.days.clone(), completeness: Arc::clone(&next.completeness) };
        *known = Some(next);
        Ok(found)
    }

    /// The same, with the days of `ranges` as they are now.
    async fn looked_at(&self, mut known: Known, ranges: &[Range]) -> Result<Known, sqlx::Error> {
        for (from, to) in ranges {
            let mut now = day::by_day(statistics::between(&self.pool, &self.time_zone, (*from, *to), None).await?);
            known.days.retain(|date, _| !(*from..=*to).contains(date) || now.contains_key(date));
            for (date, summaries) in std::mem::take(&mut now) {
                let is_same = known.days.get(&date).is_some_and(|day| day.summaries == summaries);
                if !is_same {
                    known.days.insert(date, Arc::new(LiveDay::new(date, summaries)));
                }
            }
        }
        Ok(known)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen up to now.
#[derive(Debug)]
struct Known {
    days: BTreeMap<Date, Arc<LiveDay>>,
    /// Yesterday, today and tomorrow.
    recent: Range,
    completeness: Arc<Completeness>,
}

impl Follower {
    /// The next look that has seen its days; none once there are no more.
    pub async fn look(&mut self) -> Option<Look> {
        loop {
            self.looks.changed().await.ok()?;
            let look = self.looks.borrow_and_update().clone();
            if look.number > self.after {
                return Some(look);
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.live.asked().ranges.remove(&self.number);
    }
}

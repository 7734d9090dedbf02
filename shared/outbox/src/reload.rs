//! How messages come from the table into memory: what found no room when it was placed, the logs of
//! identities that have ended, what operators want sent again. At startup as at any other time.
//!
//! All of these take turns, a page each, so that what was placed just now does not wait behind what has
//! been left for an hour.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc, time::Duration};

use fail::fail_point;
use shared::runtime::{
    database::{Failure, Pool, is_rolled_back},
    health::TaskStatus,
    lifecycle::Shutdown,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    instance_id::InstanceId,
    log::{
        Log,
        adopted::{self, Adopted},
        own::OwnPage,
    },
    message::{Format, Message},
    metrics::RELOADED,
    publisher::Lanes,
    queue::{Origin, Queue, Source},
    rebroadcast::{Next, Rebroadcast},
    settings::Settings,
    slot::Slot,
    tables,
};

/// After this long the connection is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Logs that one identity reads at a time, beside its own. Each takes a turn. One that is read and not
/// settled counts no more: what waits in it would keep all others waiting.
const ADOPTED_AT_ONCE: usize = 16;
/// When it is looked again whether it is a message's turn: after a quarter of the time since what it tells of, so that
/// one that waits for an operator costs little. At least, and at most:
const TURN_LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(30));
/// How soon a log is looked at again that waits for a transaction to end.
const CLOSING_LOOKS: Duration = Duration::from_millis(20);

/// The background task that reloads.
#[derive(Debug)]
pub struct Reloader {
    pool: Pool,
    queue: Queue,
    /// Of the messages that this can send.
    format: Format,
    page_size: NonZeroUsize,
    look_every: Duration,
    /// When it is to be looked next for what others have left.
    look_at: Instant,
    /// A page of a rebroadcast is handled.
    rebroadcast: Arc<Notify>,
    /// Which partitions of the topic take messages.
    lanes: Lanes,
    work: Work,
}

/// What is to be reloaded under one identity.
#[derive(Debug)]
struct Work {
    holder: InstanceId,
    /// Of the own log, until it is read.
    page: Option<OwnPage>,
    adopted: Vec<Adopted>,
    rebroadcast: Option<Rebroadcast>,
}

impl Work {
    fn of(holder: InstanceId) -> Self {
        Self { holder, page: None, adopted: Vec::new(), rebroadcast: None }
    }
}

impl Reloader {
    #[must_use]
    pub fn new(settings: &Settings, pool: Pool, queue: Queue, lanes: Lanes) -> Self {
        // A page larger than the queue would wait for room that never comes.
        let page = settings.reload.page_size.min(settings.publisher.queue_capacity.div_ceil(2));
        let page_size = NonZeroUsize::new(page as usize).expect("both settings are at least 1");
        let work = Work::of(queue.instance().id());
        Self {
            pool,
            queue,
            format: settings.service.format,
            page_size,
            look_every: settings.reload.look_every,
            look_at: Instant::now(),
            rebroadcast: Arc::default(),
            lanes,
            work,
        }
    }

    /// Reloads until the drain begins.
    ///
    /// # Errors
    /// None: what fails is tried again at the next look.
    pub async fn run(mut self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        while !shutdown.is_draining() {
            match self.reload_all(&shutdown, &status).await {
                Ok(()) => status.ok(),
                Err(error) => status.failing(&error, "cannot reload messages; trying again"),
            }
            let (instance, log, wake) = (self.queue.instance().clone(), self.queue.log(), self.next_look());
            let lanes = self.lanes.clone();
            let mut look_now = false;
            let wait = async {
                tokio::select! {
                    () = instance.left_behind() => look_now = true,
                    () = log.behind() => {}
                    () = lanes.opened() => {}
                    () = self.rebroadcast.notified() => {}
                    () = sleep_until(wake) => {}
                }
            };
            if shutdown.unless_draining(wait).await.is_none() {
                break;
            }
            if look_now {
                self.look_at = Instant::now();
            }
        }
        Ok(())
    }

    /// Reloads, in turns and as room comes free, until nothing is left to be reloaded now.
    async fn reload_all(&mut self, shutdown: &Shutdown, status: &TaskStatus) -> Result<(), sqlx::Error> {
        loop {
            let holder = self.queue.instance().id();
            if self.work.holder != holder {
                // What the identity before had in hand is adopted anew, its own log included.
                self.work = Work::of(holder);
                self.look_at = Instant::now();
            }
            let mut is_more = self.own_page(shutdown, status).await?;
            is_more |= self.adopted_pages(shutdown, status).await?;
            if self.look_at <= Instant::now() {
                self.adopt(status).await?;
                is_more |= !self.work.adopted.is_empty();
                self.hold_rebroadcast(status).await?;
                if self.retries(shutdown, status).await? {
                    is_more = true;
                } else {
                    self.look_at = Instant::now() + self.look_every;
                }
            }
            is_more |= self.rebroadcast_page(shutdown, status).await?;
            if !is_more || shutdown.is_draining() {
                return Ok(());
            }
        }
    }

    fn next_look(&self) -> Instant {
        let now = Instant::now();
        if self.work.adopted.iter().any(Adopted::is_about_to_close) {
            return now + CLOSING_LOOKS;
        }
        let adopted = self.work.adopted.iter().map(|one| &one.log);
        let own = &self.queue.log().log;
        let apart = adopted.chain([own]).filter_map(|log| log.next_apart()).min();
        self.look_at.min(apart.unwrap_or(self.look_at)).max(now)
    }

    /// Room for a page; none when the drain begins.
    async fn room(&self, shutdown: &Shutdown) -> Option<Vec<Slot>> {
        shutdown.unless_draining(self.queue.slots(self.page_size)).await
    }

    /// Those of a log's `messages` whose turn it is. Others are in no memory meanwhile, and read again; also where the
    /// database does not say whose turn it is.
    /// Holds: With `publisher.order = "strict"` no message of an order is sent before those of its earlier versions are marked.
    async fn in_turn(
        &self,
        messages: Vec<Message>,
        log: &Log,
        status: &TaskStatus,
    ) -> (Vec<Message>, Result<(), sqlx::Error>) {
        let turns = messages.iter().enumerate().filter(|(_, message)| self.queue.has_a_turn(&message.content));
        let (places, things): (Vec<_>, Vec<_>) =
            turns.filter_map(|(place, message)| Some((place, message.content.later_version()?))).unzip();
        if things.is_empty() {
            return (messages, Ok(()));
        }
        let asked = status.busy(ANSWER_WITHIN, tables::waiting_their_turn(&self.pool, &things)).await;
        let (waiting, asked) = match asked {
            Ok(waiting) => (waiting.into_iter().filter_map(|one| places.get(one).copied()).collect(), Ok(())),
            Err(error) => (BTreeSet::from_iter(places), Err(error)),
        };
        let (now, clock) = (Instant::now(), self.queue.instance().now());
        let (mut ready, (least, most)) = (Vec::new(), TURN_LOOKS);
        for (place, message) in messages.into_iter().enumerate() {
            if waiting.contains(&place) {
                let age = Duration::try_from(clock - message.activity_at).unwrap_or_default();
                log.read_apart(message.seq, now + (age / 4).clamp(least, most));
            } else {
                ready.push(message);
            }
        }
        (ready, asked)
    }

    fn push(&self, messages: Vec<Message>, slots: Vec<Slot>, source: &Source) -> usize {
        RELOADED.add(messages.len() as u64);
        let count = messages.len();
        for (message, slot) in messages.into_iter().zip(slots) {
            if message.format > self.format.number() {
                // Of a newer version, which knows its bytes: the log stays undone until one adopts it.
                tracing::error!(message_ref = %message.message_ref, format = message.format,
                    "a message is of a newer version than this one; it waits for an instance of that");
                continue;
            }
            self.queue.push(message, self.work.holder, source.clone(), slot, Origin::Reloaded);
        }
        count
    }

    /// The next page of the own log, where it is behind, and what is to be read by itself.
    async fn own_page(&mut self, shutdown: &Shutdown, status: &TaskStatus) -> Result<bool, sqlx::Error> {
        let own = self.queue.log();
        if own.log.id != self.work.holder {
            return Ok(true);
        }
        let is_apart = self.apart(&own.log, shutdown, status).await?;
        if self.work.page.is_none() && !own.is_behind() {
            return Ok(is_apart);
        }
        let Some(slots) = self.room(shutdown).await else { return Ok(false) };
        // One whose reading failed is read again: the cursor is past it.
        let Some(next) = self.work.page.take().or_else(|| own.next_page(slots.len())) else { return Ok(is_apart) };
        let reading = tables::read_range(&self.pool, own.log.id, next.from, next.before, i64::MAX);
        match status.busy(ANSWER_WITHIN, reading).await {
            Ok(mut messages) => {
                messages.retain(|message| next.takes(message.seq));
                let (messages, asked) = self.in_turn(messages, &own.log, status).await;
                self.push(messages, slots, &Source::Log(own.log.clone()));
                asked.map(|()| true)
            }
            Err(error) => {
                self.work.page = Some(next);
                Err(error)
            }
        }
    }

    /// What is to be read by itself of a log: it was under way when its page was read, waits out a back-off in the
    /// table, or has waited there for its partition.
    async fn apart(&self, log: &Arc<Log>, shutdown: &Shutdown, status: &TaskStatus) -> Result<bool, sqlx::Error> {
        let is_open = |partition| self.lanes.is_open(partition);
        if log.next_apart().is_none_or(|at| at > Instant::now()) && !log.has_back(is_open) {
            return Ok(false);
        }
        let Some(slots) = self.room(shutdown).await else { return Ok(false) };
        let mut due = log.due_apart(Instant::now(), slots.len());
        due.extend(log.take_back(is_open, slots.len() - due.len()));
        let reading = tables::read_places(&self.pool, log.id, &due);
        match status.busy(ANSWER_WITHIN, reading).await {
            Ok(messages) => {
                let (messages, asked) = self.in_turn(messages, log, status).await;
                let count = self.push(messages, slots, &Source::Log(log.clone()));
                asked.map(|()| count > 0)
            }
            Err(error) => {
                due.into_iter().for_each(|seq| log.read_apart(seq, Instant::now()));
                Err(error)
            }
        }
    }

    async fn adopt(&mut self, status: &TaskStatus) -> Result<(), sqlx::Error> {
        let read = self.work.adopted.iter().filter(|one| one.is_being_read()).count();
        let room = ADOPTED_AT_ONCE.saturating_sub(read);
        let limit = i64::try_from(room).expect("it is small");
        let adopting = async {
            fail_point!("adoption::before", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
            adopted::adopt(&self.pool, self.work.holder, limit).await
        };
        let adopted = status.busy(ANSWER_WITHIN, adopting).await?;
        fail_point!("adoption::committed", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        for log in &adopted {
            tracing::info!(log = log.number(), "sending what an ended instance has left in its log");
        }
        // Those of an answer that was lost as well.
        for one in status.busy(ANSWER_WITHIN, adopted::adopted_by(&self.pool, self.work.holder)).await? {
            if self.work.adopted.iter().all(|known| known.log.id != one.log.id) {
                self.work.adopted.push(one);
            }
        }
        Ok(())
    }

    /// A page of each adopted log.
    async fn adopted_pages(&mut self, shutdown: &Shutdown, status: &TaskStatus) -> Result<bool, sqlx::Error> {
        let mut is_more = false;
        let writers = if self.work.adopted.iter().all(Adopted::is_closed) {
            Vec::new()
        } else {
            status.busy(ANSWER_WITHIN, adopted::writers(&self.pool)).await?
        };
        let mut adopted = std::mem::take(&mut self.work.adopted);
        let mut result = Ok(());
        for one in &mut adopted {
            match self.adopted_page(one, &writers, shutdown, status).await {
                Ok(more) => is_more |= more,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.work.adopted = adopted;
        result?;
        let (holder, pool) = (self.work.holder, &self.pool);
        let mut unfinished = Vec::new();
        for one in std::mem::take(&mut self.work.adopted) {
            match status.busy(ANSWER_WITHIN, one.finish(pool, holder)).await {
                Ok(true) => tracing::info!(log = one.log.id.number(), "everything in an adopted log is sent"),
                Ok(false) => unfinished.push(one),
                Err(error) => {
                    tracing::debug!(error = %error, "cannot finish an adopted log; trying again");
                    unfinished.push(one);
                }
            }
        }
        self.work.adopted = unfinished;
        Ok(is_more)
    }

    async fn adopted_page(
        &self,
        adopted: &mut Adopted,
        writers: &[String],
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> Result<bool, sqlx::Error> {
        let is_apart = self.apart(&adopted.log, shutdown, status).await?;
        status.busy(ANSWER_WITHIN, adopted.close(&self.pool, writers)).await?;
        if !adopted.is_to_be_read() {
            return Ok(is_apart);
        }
        let Some(slots) = self.room(shutdown).await else { return Ok(false) };
        let reading = async {
            fail_point!("adoption::before_reading", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
            adopted.read_page(&self.pool, slots.len()).await
        };
        let messages = status.busy(ANSWER_WITHIN, reading).await?;
        let (messages, asked) = self.in_turn(messages, &adopted.log, status).await;
        self.push(messages, slots, &Source::Log(adopted.log.clone()));
        fail_point!("adoption::read", |_| std::process::abort());
        asked?;
        Ok(is_apart || adopted.is_to_be_read())
    }

    /// A page of the failed messages that an operator wants sent again.
    async fn retries(&self, shutdown: &Shutdown, status: &TaskStatus) -> Result<bool, sqlx::Error> {
        if self.lanes.parked() >= self.page_size.get() {
            return Ok(false);
        }
        if !status.busy(ANSWER_WITHIN, tables::has_retries(&self.pool)).await? {
            return Ok(false);
        }
        let Some(slots) = self.room(shutdown).await else { return Ok(false) };
        let limit = i64::try_from(slots.len()).unwrap_or(i64::MAX);
        fail_point!("retry::before", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        // Without a connection nothing is sent, and nothing is in doubt.
        let mut connection = self.pool.acquire().await?;
        let holding = async {
            let messages = tables::hold_retries(&mut connection, self.work.holder, limit).await?;
            fail_point!("retry::answer_lost", |_| Err(sqlx::Error::PoolTimedOut));
            Ok(messages)
        };
        let held = status.busy(ANSWER_WITHIN, holding).await;
        connection.end_with(&held);
        match held {
            Ok(messages) => Ok(self.push(messages, slots, &Source::Retry) > 0),
            Err(error) => {
                // Messages may be held by this identity that are in no memory: another one will hold them.
                if Failure::of(&error) == Failure::Outage && !is_rolled_back(&error) {
                    tracing::warn!("nobody knows which messages this instance holds: it takes another identity");
                    self.queue.instance().doubt();
                }
                Err(error)
            }
        }
    }

    async fn hold_rebroadcast(&mut self, status: &TaskStatus) -> Result<(), sqlx::Error> {
        if self.work.rebroadcast.is_none() {
            let holding = Rebroadcast::hold(&self.pool, self.work.holder, &self.rebroadcast);
            self.work.rebroadcast = status.busy(ANSWER_WITHIN, holding).await?;
        }
        Ok(())
    }

    /// A page of a span of time that is to be published once more.
    async fn rebroadcast_page(&mut self, shutdown: &Shutdown, status: &TaskStatus) -> Result<bool, sqlx::Error> {
        let Some(mut rebroadcast) = self.work.rebroadcast.take() else { return Ok(false) };
        if rebroadcast.is_under_way() {
            self.work.rebroadcast = Some(rebroadcast);
            return Ok(false);
        }
        let Some(slots) = self.room(shutdown).await else { return Ok(false) };
        let reading =
            status.busy(ANSWER_WITHIN, rebroadcast.next_page(&self.pool, slots.len(), self.format.number())).await;
        let pushed = match reading {
            Ok(Next::Page(messages, page)) => {
                self.push(messages, slots, &Source::Rebroadcast(page));
                Ok(true)
            }
            Ok(Next::NothingHere) => Ok(true),
            Ok(Next::Over) => return Ok(true),
            Err(error) => Err(error),
        };
        self.work.rebroadcast = Some(rebroadcast);
        pushed
    }
}

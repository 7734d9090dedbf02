//! How messages come from the table into memory: what found no room when it was placed, the logs of
//! identities that have ended, what operators want sent again. At startup as at any other time.
//!
//! All of these take turns, a page each, so that what was placed just now does not wait behind what has
//! been left for an hour.

use std::{collections::BTreeMap, num::NonZeroUsize, sync::Arc, time::Duration};

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
    tables::{self, Waiting},
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

/// What one turn of everything has come to.
#[derive(Debug, Default)]
struct Turn {
    /// Another one may find something at once.
    is_more: bool,
    /// Something failed that stops nothing else.
    refused: Option<sqlx::Error>,
}

impl Turn {
    /// # Errors
    /// One that the server has not answered with: it is the same for all that would come then.
    fn note(&mut self, step: Result<bool, sqlx::Error>) -> Result<(), sqlx::Error> {
        match step {
            Ok(is_more) => self.is_more |= is_more,
            Err(error) if is_rolled_back(&error) => self.refused = Some(error),
            Err(error) => return Err(error),
        }
        Ok(())
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
            let mut turn = Turn::default();
            turn.note(self.own_page(shutdown, status).await)?;
            self.adopted_pages(shutdown, status, &mut turn).await?;
            if self.look_at <= Instant::now() {
                turn.note(self.adopt(status).await)?;
                turn.note(self.hold_rebroadcast(status).await.map(|()| false))?;
                let retries = self.retries(shutdown, status).await;
                if !matches!(retries, Ok(true)) {
                    self.look_at = Instant::now() + self.look_every;
                }
                turn.note(retries)?;
            }
            turn.note(self.rebroadcast_page(shutdown, status).await)?;
            if !turn.is_more || shutdown.is_draining() {
                return turn.refused.map_or(Ok(()), Err);
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
    /// database does not say whose turn it is. Those whose turn an operator decides leave the log.
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
        let (waiting, mut result) = match asked {
            Ok(waiting) => (waiting, Ok(())),
            Err(error) => {
                let all = (0..places.len()).map(|place| Waiting { place, for_operator: false });
                (all.collect(), Err(error))
            }
        };
        let mut waiting: BTreeMap<_, _> =
            waiting.iter().filter_map(|one| Some((*places.get(one.place)?, one.for_operator))).collect();
        let decided: Vec<_> =
            waiting.iter().filter(|(_, for_operator)| **for_operator).map(|(place, _)| messages[*place].seq).collect();
        if !decided.is_empty() {
            let setting = tables::set_aside(&self.pool, self.work.holder, log.id, &decided);
            match status.busy(ANSWER_WITHIN, setting).await {
                Ok(true) => log.settle(decided),
                // Whoever adopts the log does.
                Ok(false) => {}
                Err(error) => {
                    result = Err(error);
                    waiting.values_mut().for_each(|for_operator| *for_operator = false);
                }
            }
        }
        let (now, clock) = (Instant::now(), self.queue.instance().now());
        let (mut ready, (least, most)) = (Vec::new(), TURN_LOOKS);
        for (place, message) in messages.into_iter().enumerate() {
            match waiting.get(&place) {
                None => ready.push(message),
                Some(true) => {}
                Some(false) => {
                    let age = Duration::try_from(clock - message.activity_at).unwrap_or_default();
                    log.read_apart(message.seq, now + (age / 4).clamp(least, most));
                }
            }
        }
        (ready, result)
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
            Ok((messages, left)) => {
                // That one of them left was not answered.
                log.settle(left);
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

    /// Whether there are adopted logs.
    async fn adopt(&mut self, status: &TaskStatus) -> Result<bool, sqlx::Error> {
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
        Ok(!self.work.adopted.is_empty())
    }

    /// A page of each adopted log.
    async fn adopted_pages(
        &mut self,
        shutdown: &Shutdown,
        status: &TaskStatus,
        turn: &mut Turn,
    ) -> Result<(), sqlx::Error> {
        let writers = if self.work.adopted.iter().all(Adopted::is_closed) {
            Vec::new()
        } else {
            match status.busy(ANSWER_WITHIN, adopted::writers(&self.pool)).await {
                Ok(writers) => writers,
                Err(error) => return turn.note(Err(error)),
            }
        };
        let mut adopted = std::mem::take(&mut self.work.adopted);
        let mut result = Ok(());
        for one in &mut adopted {
            result = turn.note(self.adopted_page(one, &writers, shutdown, status).await);
            if result.is_err() {
                break;
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
        Ok(())
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
        if !status.busy(ANSWER_WITHIN, tables::has_retries(&self.pool, self.queue.is_strict())).await? {
            return Ok(false);
        }
        let Some(slots) = self.room(shutdown).await else { return Ok(false) };
        let limit = i64::try_from(slots.len()).unwrap_or(i64::MAX);
        fail_point!("retry::before", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        // Without a connection nothing is sent, and nothing is in doubt.
        let mut connection = self.pool.acquire().await?;
        let holding = async {
            let messages =
                tables::hold_retries(&mut connection, self.work.holder, limit, self.queue.is_strict()).await?;
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

//! The life of an identity, on the one connection that holds its lock.
//!
//! *Holding*: a look a second, which confirms the lock and finds who is gone. *Lost*: the connection
//! broke; connect, take the same lock, and unless the identity was ended meanwhile go on. *Replacing*:
//! it was ended, or there is doubt about what is in its log; what is in flight lands, nothing more is
//! handed over, a new identity is taken. A new process, one back from a pause and one whose session was
//! cut all pass through these.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    time::Duration,
};

use fail::fail_point;
use shared::runtime::{
    database::{self, Address, DURABLE, OwnFinding, Pool, backoff, within},
    health::TaskStatus,
};
use sqlx::{Executor, postgres::PgConnection};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Instance,
    identity::{self, Look},
};
use crate::{
    flight::{Flight, Permit},
    instance_id::InstanceId,
    metrics::{ENDED_BY_OTHERS, IDENTITIES, SESSIONS_LOST, TAKEN_OVER},
    reach::Reach,
};

/// How long what is in flight is waited for once others send it: callers wait for a new identity meanwhile.
const LANDS_WITHIN: Duration = Duration::from_secs(1);

/// The process's session with the database.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    pool: Pool,
    connection: PgConnection,
    instance: Instance,
    flight: Flight,
    reach: Reach,
    /// The server's, as the look before showed it.
    timeline: Option<String>,
    /// The identity that this process has begun to end itself.
    ending: Option<InstanceId>,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub address: Address,
    /// As the server lists it: the service's name, then "session".
    pub application: String,
    /// The session's connections are of the same kind as those of the pool, which goes another way where there is a pooler.
    pub is_as_pool: bool,
    /// How long another instance must be gone before its messages are taken over.
    pub takeover_after: Duration,
}

impl Settings {
    /// A look a second; more often where others would otherwise wait shorter than two looks.
    fn look_every(&self) -> Duration {
        (self.takeover_after / 5).min(Duration::from_secs(1))
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = async {
            let mut connection = database::connect(&self.address, &self.application).await?;
            self.prepare(&mut connection).await?;
            Ok(connection)
        };
        within(self.takeover_after, connecting).await
    }

    /// A connection that the pool gives up. The session comes first: without it nothing is sent.
    async fn take_from(&self, pool: &Pool) -> Result<Option<PgConnection>, sqlx::Error> {
        if !self.is_as_pool {
            return Ok(None);
        }
        // Whoever has one gives it back after a statement or two. Where all may be in use this waits in line; where the
        // pool would rather make one more, which the server refuses, an idle one is taken.
        let idle = async {
            loop {
                if let Some(connection) = pool.try_acquire() {
                    return connection;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let connection = tokio::select! {
            connection = idle => connection,
            Ok(connection) = pool.acquire() => connection,
            () = sleep(self.look_every()) => return Ok(None),
        };
        let mut connection = connection.detach();
        let preparing = async {
            let reset = format!("RESET ALL; SET application_name = '{}'", self.application);
            connection.execute(reset.as_str()).await?;
            self.prepare(&mut connection).await
        };
        within(self.takeover_after, preparing).await?;
        Ok(Some(connection))
    }

    async fn prepare(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // A vanished host cannot close its connection: the server finds out by asking, in as
        // long as a take-over waits. It is idle between two looks, whatever is permitted elsewhere.
        let seconds = self.takeover_after.as_secs().max(3) / 3;
        let limits = format!(
            "SET default_transaction_isolation = 'read committed'; \
                 SET idle_session_timeout = 0; SET jit = off; SET tcp_keepalives_idle = {seconds}; \
                 SET tcp_keepalives_interval = {seconds}; SET tcp_keepalives_count = 2; \
                 SET tcp_user_timeout = '{}ms'; SET statement_timeout = '{}ms'; SET lock_timeout = '{}ms'; {DURABLE}",
            self.takeover_after.as_millis(),
            // What somebody else has locked must not keep this from proving that it lives.
            self.takeover_after.as_millis() * 4 / 5,
            self.takeover_after.as_millis() / 10,
        );
        connection.execute(limits.as_str()).await.map(drop)
    }
}

impl Session {
    /// Connects and takes a new identity.
    ///
    /// # Errors
    /// The database's.
    pub async fn begin(settings: Settings, pool: Pool, flight: Flight) -> Result<(Self, Instance), sqlx::Error> {
        let mut connection = settings.connect().await?;
        let asked_at = Instant::now();
        let taken = identity::take(&mut connection, settings.takeover_after).await?;
        IDENTITIES.add(1);
        tracing::info!(instance = taken.id.number(), "took an identity");
        let instance = Instance::new(&taken, asked_at, settings.takeover_after);
        let (reach, timeline, ending) = (Reach::default(), None, None);
        let session = Self { settings, pool, connection, instance: instance.clone(), flight, reach, timeline, ending };
        Ok((session, instance))
    }

    /// Where it tells that it is gone.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach.clone()
    }

    /// Keeps the identity, or another one, until `stop`.
    ///
    /// # Errors
    /// None: whatever happens to the connection, it is made again.
    pub async fn run(self, stop: CancellationToken, status: TaskStatus) -> anyhow::Result<()> {
        stop.run_until_cancelled(self.live(&status)).await;
        Ok(())
    }

    async fn live(mut self, status: &TaskStatus) {
        let mut lost = None;
        loop {
            let done = match self.hold(&mut lost, status).await {
                Ok(nothing_in_flight) => self.replace(nothing_in_flight, status).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                let is_new = lost.is_none();
                let lost = lost.get_or_insert_with(|| Lost::now(&self.settings, &self.reach));
                if is_new {
                    SESSIONS_LOST.add(1);
                    status.failing(&error, "lost the session with the database");
                }
                lost.note(&error, status);
                // Its connection goes first: as long as it is open it may hold the lock.
                let Self { settings, pool, connection, instance, flight, reach, timeline, ending } = self;
                drop(connection);
                if !is_new {
                    lost.pause().await;
                }
                let connection = resume(&settings, &pool, &instance, lost, status).await;
                self = Self { settings, pool, connection, instance, flight, reach, timeline, ending };
            }
        }
    }

    /// Looks once a second, until the identity has to be replaced and nothing is in flight any more,
    /// and keeps that so by the permit it returns. A look that succeeds proves that the lock is held,
    /// because the lock is the connection's; it is needed for as long as messages are in flight.
    async fn hold(&mut self, lost: &mut Option<Lost>, status: &TaskStatus) -> Result<Permit, sqlx::Error> {
        let id = self.instance.id();
        let flight = self.flight.clone();
        let mut landed = pin!(flight.landed());
        let held_since = Instant::now();
        let mut gone_since = HashMap::new();
        let mut answered_at = Instant::now();
        // Whose end could not be written: somebody has locked their rows.
        let mut held_up = HashSet::new();
        loop {
            let asked_at = Instant::now();
            let looking = async {
                let look = identity::look(&mut self.connection, id).await?;
                if look.is_held && !look.ended {
                    fail_point!("session::looked", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
                }
                Ok::<_, sqlx::Error>(look)
            };
            let look: Look = status.busy(self.settings.takeover_after, looking).await?;
            // Whoever was gone may have come back and gone again between two looks that are so far apart.
            if answered_at.elapsed() > self.settings.takeover_after {
                gone_since.clear();
            }
            answered_at = Instant::now();
            self.instance.note_pause(look.is_paused);
            if look.ended {
                self.instance.distrust();
                if self.ending != Some(id) {
                    ENDED_BY_OTHERS.add(1);
                    tracing::error!(
                        instance = id.number(),
                        "another instance has taken this one for gone; what was in flight is sent twice"
                    );
                }
                // Others send what is in flight by now. While Kafka takes nothing it would never land, and no order would
                // be taken.
                if let Ok(permit) = timeout(LANDS_WITHIN, &mut landed).await {
                    return Ok(permit);
                }
                flight.give_up();
                return Ok(landed.await);
            }
            if !look.is_held {
                let why = "the session does not hold its lock on this server any more";
                return Err(OwnFinding::Unfit(why.into()).into());
            }
            self.note_timeline(look.timeline);
            if self.instance.log().log.is_doubted() {
                self.instance.distrust();
            } else {
                self.instance.confirm(asked_at, look.now);
            }
            if lost.take().is_some() {
                self.reach.lacks_session(false);
            }
            status.ok();
            gone_since.retain(|other, _| look.gone.contains(other));
            held_up.retain(|other| look.gone.contains(other));
            let own = self.settings.takeover_after;
            let seconds = look.gone_for.iter().map(|seconds| Duration::try_from_secs_f64(*seconds).unwrap_or(own));
            let mut gone: Vec<_> = look.gone.iter().copied().zip(seconds).collect();
            // Tried last: they keep nobody else waiting.
            gone.sort_by_key(|(other, _)| held_up.contains(other));
            for (other, takeover_after) in gone {
                // From the answer on: a look may take long, and until then the lock may have been held.
                let since = *gone_since.entry(other).or_insert(answered_at);
                // After an outage of the database everyone looks gone: everyone returns first. Whoever has the longer
                // setting trusts its lock for longer.
                if asked_at.duration_since(since.max(held_since)) >= takeover_after.max(own)
                    && !self.end_other(InstanceId::from(other), status).await?
                {
                    // The next look comes first.
                    held_up.insert(other);
                    break;
                }
            }
            let in_doubt = self.instance.is_in_doubt();
            tokio::select! {
                () = self.instance.0.doubted.notified() => {}
                permit = &mut landed, if in_doubt => return Ok(permit),
                () = sleep(self.settings.look_every()) => {}
            }
        }
    }

    /// Where a standby was promoted, what was committed last may be lost with the server before, messages and
    /// acknowledgements alike: nothing that this process remembers is handed over any more.
    fn note_timeline(&mut self, now: Option<String>) {
        if self.timeline.is_some() && self.timeline != now {
            tracing::warn!(
                timeline.before = self.timeline,
                timeline = now,
                "the database was promoted: reading the log anew"
            );
            self.instance.log().log.doubt();
            self.instance.doubt();
        }
        self.timeline = now;
    }

    /// Declares another identity ended, its lock in hand: it cannot come back in between. False where somebody has
    /// locked its row.
    async fn end_other(&mut self, other: InstanceId, status: &TaskStatus) -> Result<bool, sqlx::Error> {
        let takeover = async {
            if identity::try_lock(&mut self.connection, other).await? {
                fail_point!("session::before_end_other", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
                let ended = identity::end(&mut self.connection, other).await;
                if ended.as_ref().err().is_none_or(database::is_rolled_back) {
                    identity::unlock(&mut self.connection, other).await?;
                }
                let by_this = match ended {
                    Err(error) if is_locked(&error) => return Ok(false),
                    ended => ended?,
                };
                fail_point!("session::ended_other", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
                if by_this {
                    TAKEN_OVER.add(1);
                    tracing::warn!(instance = other.number(), "another instance is gone: its messages are taken over");
                }
                self.instance.0.left_behind.notify_one();
            }
            Ok(true)
        };
        status.busy(self.settings.takeover_after, takeover).await
    }

    /// Ends the identity and takes a new one. While all of the flight is held nothing is in flight
    /// and nothing can be handed over; where this fails half way nothing is trusted until it is known
    /// how far it came.
    async fn replace(&mut self, _nothing_in_flight: Permit, status: &TaskStatus) -> Result<(), sqlx::Error> {
        self.instance.distrust();
        let old = self.instance.id();
        self.ending = Some(old);
        let asked_at = Instant::now();
        let replacing = async {
            fail_point!("session::before_replace", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
            match identity::end(&mut self.connection, old).await {
                // Without its lock it is gone, and ended by whoever looks, this one included.
                Err(error) if is_locked(&error) => {}
                ended => drop(ended?),
            }
            fail_point!("session::ended_own", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
            let new = identity::take(&mut self.connection, self.settings.takeover_after).await?;
            // Of no use to anybody any more.
            identity::unlock(&mut self.connection, old).await?;
            Ok::<_, sqlx::Error>(new)
        };
        let new = status.busy(self.settings.takeover_after, replacing).await?;
        fail_point!("session::took_another", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
        self.instance.replace(&new, asked_at);
        // What the old one has left is there to be adopted, by this one as well as by others.
        self.instance.0.left_behind.notify_one();
        IDENTITIES.add(1);
        tracing::warn!(instance = new.id.number(), "instance.before" = old.number(), "took a new identity");
        Ok(())
    }
}

/// The session is lost, until a look succeeds: one on which none does is of no use.
struct Lost {
    at: Instant,
    takeover_after: Duration,
    longest_pause: Duration,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
    /// That it takes long, and that a privilege is missing.
    told: [bool; 2],
    reach: Reach,
}

impl Lost {
    fn now(settings: &Settings, reach: &Reach) -> Self {
        Self {
            at: Instant::now(),
            takeover_after: settings.takeover_after,
            // Others give everyone `takeover_after` to return, counted from their own return.
            longest_pause: settings.look_every(),
            pauses: Box::new(backoff()),
            told: [false; 2],
            reach: reach.clone(),
        }
    }

    /// What keeps it away now may not be what broke it. For a privilege nobody need wait to be told.
    fn note(&mut self, error: &sqlx::Error, status: &TaskStatus) {
        status.waiting(error);
        let is_forbidden = database::is_forbidden(error);
        let is_told = &mut self.told[usize::from(is_forbidden)];
        if !*is_told && (is_forbidden || self.at.elapsed() > self.takeover_after) {
            *is_told = true;
            self.reach.lacks_session(true);
            tracing::error!(error = %error, "without a session with the database nothing is sent");
        }
    }

    async fn pause(&mut self) {
        let pause = self.pauses.next().expect("the back-off never ends");
        sleep(pause.min(self.longest_pause)).await;
    }
}

/// Whether somebody else has locked what a statement wants to change.
fn is_locked(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|answer| answer.code().as_deref() == Some("55P03"))
}

/// Connects again and takes the same lock. The next look says what it is worth: the identity may have been
/// ended meanwhile, and the server may be another one.
async fn resume(
    settings: &Settings,
    pool: &Pool,
    instance: &Instance,
    lost: &mut Lost,
    status: &TaskStatus,
) -> PgConnection {
    let id = instance.id();
    loop {
        let resuming = async {
            let mut connection = match settings.connect().await {
                Err(error) if database::has_too_many(&error) => settings.take_from(pool).await?.ok_or(error)?,
                other => other?,
            };
            let asking = async {
                // Held by the old session, which the server has not given up yet, or by one that is
                // just declaring this identity ended.
                let locked = identity::try_lock(&mut connection, id).await?;
                Ok(locked || identity::has_ended(&mut connection, id).await?)
            };
            let is_answered = within(settings.takeover_after, asking).await?;
            Ok::<_, sqlx::Error>(is_answered.then_some(connection))
        };
        match resuming.await {
            Ok(Some(connection)) => return connection,
            Ok(None) => {}
            Err(error) => lost.note(&error, status),
        }
        lost.pause().await;
    }
}

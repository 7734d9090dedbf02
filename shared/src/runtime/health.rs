//! What the probes tell: the state of the process and of each of its background tasks.

mod heartbeat;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use heartbeat::TimedOut;
pub(crate) use heartbeat::limited;
use heartbeat::{Heartbeat, Threads, Watched};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::runtime::{
    config::Reader,
    metrics::own::{TASK_HEARTBEAT_AGE, TASK_STATE},
};

/// The threads of the runtime, among the tasks.
const RUNTIME: &str = "runtime";
/// How often it is looked whether somebody hangs: this much later it is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The setting `health.task_hung_after`.
pub fn task_hung_after(settings: &mut Reader) -> Duration {
    settings.within("health.task_hung_after", Duration::from_secs(5).., "5s or longer")
}

/// How every task of this process is doing.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    reports: BTreeMap<&'static str, Report>,
    /// Several of one name: some tasks are many.
    heartbeats: Vec<(&'static str, Heartbeat, Watched<u64>)>,
    threads: Option<Threads>,
    hung_after: Option<Duration>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BackgroundTaskReport)]
pub(crate) struct Report {
    pub state: State,
    /// Since when it is in this state.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    since: OffsetDateTime,
    /// When a piece of its work was done last.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_success: Option<OffsetDateTime>,
    #[schema(required)]
    last_error: Option<String>,
    /// How long it has been with its present piece of work.
    #[schema(minimum = 0)]
    busy_for_seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = BackgroundTaskState)]
pub(crate) enum State {
    Starting,
    Working,
    /// For something outside the process to come back.
    Waiting,
    /// With one piece of work for `health.task_hung_after` longer than that may take.
    Hung,
    Ended,
}

impl State {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Starting, "starting"),
        (Self::Working, "working"),
        (Self::Waiting, "waiting"),
        (Self::Hung, "hung"),
        (Self::Ended, "ended"),
    ];
}

impl Health {
    /// The status of a new task, which is starting.
    #[must_use]
    pub fn task(&self, name: &'static str) -> TaskStatus {
        let mut book = self.book();
        book.reports.entry(name).or_insert_with(|| Report::new(State::Starting));
        let heartbeat = Heartbeat::default();
        book.heartbeats.push((name, heartbeat.clone(), Watched::default()));
        TaskStatus { health: self.clone(), name, heartbeat }
    }

    /// Begins to look whether a task, or a thread of this runtime, hangs for longer than
    /// `hung_after`, until the process ends.
    pub fn watch(&self, hung_after: Duration) {
        let mut book = self.book();
        book.threads = Some(Threads::new(tokio::runtime::Handle::current().metrics()));
        book.reports.insert(RUNTIME, Report::new(State::Working));
        book.hung_after = Some(hung_after);
        drop(book);
        let health = self.clone();
        // No runtime can stop it.
        #[expect(clippy::disallowed_methods, reason = "a thread of its own, of which no worker is blocked")]
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(LOOK_EVERY);
                health.look(LOOK_EVERY);
            }
        });
    }

    fn look(&self, passed: Duration) {
        let mut book = self.book();
        for (_, heartbeat, watched) in &mut book.heartbeats {
            watched.look_at(heartbeat, passed);
        }
        if let Some(threads) = &mut book.threads {
            threads.look(passed);
        }
    }

    /// Of each task, with what its heartbeats say.
    pub(crate) fn reports(&self) -> BTreeMap<&'static str, Report> {
        let book = self.book();
        let mut reports = book.reports.clone();
        let tasks = book.heartbeats.iter().map(|(name, beats, watched)| (*name, watched.busy_for, beats.limit()));
        let threads = book.threads.iter().map(|threads| (RUNTIME, threads.busy_for(), Duration::ZERO));
        for (name, busy_for, limit) in tasks.chain(threads) {
            let report = reports.get_mut(name).expect("a task is entered before its heartbeat");
            report.busy_for_seconds = report.busy_for_seconds.max(busy_for.as_secs());
            if book.hung_after.is_some_and(|after| busy_for >= limit.saturating_add(after)) {
                report.state = State::Hung;
            }
        }
        reports
    }

    /// Sets the gauges of all tasks.
    pub fn set_gauges(&self) {
        for (name, report) in self.reports() {
            let age = Duration::from_secs(report.busy_for_seconds).as_secs_f64();
            metrics::gauge!(TASK_HEARTBEAT_AGE, "task" => name).set(age);
            for (state, label) in State::ALL {
                let is_in_it = if report.state == state { 1.0 } else { 0.0 };
                metrics::gauge!(TASK_STATE, "task" => name, "state" => label).set(is_in_it);
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    fn new(state: State) -> Self {
        let since = OffsetDateTime::now_utc();
        Self { state, since, last_success: None, last_error: None, busy_for_seconds: 0 }
    }
}

/// Where one task says how it is doing. Not each is a task of the runtime: the database at the start is one too.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    health: Health,
    name: &'static str,
    heartbeat: Heartbeat,
}

impl TaskStatus {
    /// A piece of work, given up after about `limit` of the time in which this process runs. A task that does not
    /// come back from it for `health.task_hung_after` longer hangs.
    /// Holds: No piece of work waits for something outside without a limit.
    ///
    /// # Errors
    /// Its own, and [`TimedOut`]: of what it has asked of others nobody knows whether it is done.
    pub async fn busy<T, E: From<TimedOut>>(
        &self,
        limit: Duration,
        piece: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let _work = self.heartbeat.busy(limit);
        limited(limit, piece).await.unwrap_or_else(|| Err(TimedOut(limit).into()))
    }

    /// A piece of work that waits for nothing.
    pub fn busy_now<T>(&self, piece: impl FnOnce() -> T) -> T {
        let _work = self.heartbeat.busy(Duration::ZERO);
        piece()
    }

    /// Beats for as long as the thread on which it is called gets on with its tasks.
    pub async fn beat(self) {
        let Self { health, name, .. } = self;
        let own = health.task(name);
        loop {
            let _alive = own.heartbeat.busy(Duration::ZERO);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub fn ok(&self) {
        self.write(State::Working, |report| report.last_success = Some(OffsetDateTime::now_utc()));
    }

    /// Something outside fails. That is logged when it begins, not each time it is tried again.
    pub fn failing(&self, error: impl fmt::Display, what: &'static str) {
        if self.waiting(&error) {
            tracing::warn!(task = self.name, error = %error, "{what}");
        }
    }

    /// Whether this is news, for a caller that logs it with fields of its own, or leaves that to another task.
    pub fn waiting(&self, why: impl fmt::Display) -> bool {
        self.write(State::Waiting, |report| report.last_error = Some(why.to_string()))
    }

    pub fn ended(&self, error: Option<&anyhow::Error>) {
        self.write(State::Ended, |report| {
            if let Some(error) = error {
                report.last_error = Some(error.to_string());
            }
        });
    }

    fn write(&self, state: State, change: impl FnOnce(&mut Report)) -> bool {
        let mut book = self.health.book();
        let report = book.reports.get_mut(self.name).expect("a task is entered before it is handed out");
        let news = report.state != state;
        if news {
            report.since = OffsetDateTime::now_utc();
        }
        report.state = state;
        change(report);
        news
    }
}

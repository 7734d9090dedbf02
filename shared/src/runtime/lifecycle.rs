//! From the first task to the exit code.
//!
//! A stop has two moments. *Requested*: not ready any more, everything still works. *Drain*, after
//! `shutdown.readiness_delay`: the listener closes, and each task ends when the one that feeds it
//! has ended. A task that ends before the drain is a crash, and the process ends with it.

use std::{process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::{
    config::Reader,
    health::{Health, TaskStatus},
    telemetry, terminal,
};

/// How the process ends; the numbers are part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Stopped = 0,
    Failed = 1,
    WrongSettings = 2,
    OldSchema = 3,
    DrainUnfinished = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with its causes, each once: many a type says its cause itself and gives it as a source too.
#[must_use]
pub fn told_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        before => format!("{before}: {cause}"),
    })
}

/// The exit code of what was done; what went wrong is told to the operator. A reader of the output that has seen enough
/// is no failure.
#[must_use]
pub fn ended(done: anyhow::Result<Exit>) -> ExitCode {
    done.unwrap_or_else(|error| {
        if terminal::is_closed_pipe(&error) {
            return Exit::Stopped;
        }
        terminal::complain(told_once(&error));
        Exit::Failed
    })
    .into()
}

#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long requests are still taken after ready answers 503: until every load balancer knows.
    pub readiness_delay: Duration,
    /// How long the drain may take.
    pub grace: Duration,
}

impl Timing {
    pub fn read(settings: &mut Reader) -> Self {
        Self { readiness_delay: settings.get("shutdown.readiness_delay"), grace: settings.get("shutdown.grace") }
    }
}

/// Tells everyone that the process is to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    drain: CancellationToken,
}

impl Shutdown {
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Until the process takes no more work.
    pub async fn drain_begun(&self) {
        self.drain.cancelled().await;
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Awaits `work` unless the drain begins first. Only for waiting: never round a transaction.
    pub async fn unless_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.drain.run_until_cancelled(work).await
    }

    /// As if a signal had come, without the delay. For the end of a failed process, and for tests.
    pub fn drain_now(&self) {
        self.requested.cancel();
        self.drain.cancel();
    }
}

/// SIGTERM or SIGINT. SIGHUP opens the files of the log anew; SIGUSR1 and SIGUSR2 do nothing.
#[derive(Debug)]
pub struct StopSignal {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// # Errors
    /// The operating system refuses a signal handler.
    pub fn new() -> std::io::Result<Self> {
        // What would end the process without a drain is ignored from now on: a terminal that closes, a tool that
        // takes it for another program.
        for kind in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(signal(kind)?);
        }
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { hangup, terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub async fn received(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => telemetry::open_anew(),
            }
        }
    }
}

/// The background tasks of the process.
/// Holds: No background task ends unnoticed: its end ends the process, with code 1.
#[derive(Debug)]
pub struct Tasks {
    running: JoinSet<anyhow::Result<()>>,
    statuses: Vec<(Id, &'static str, TaskStatus)>,
    health: Health,
    shutdown: Shutdown,
    failed: bool,
}

impl Tasks {
    #[must_use]
    pub fn new(health: Health, shutdown: Shutdown) -> Self {
        Self { running: JoinSet::new(), statuses: Vec::new(), health, shutdown, failed: false }
    }

    /// Starts a task of the given name. It hears of the stop, and says in its status how it is doing.
    pub fn spawn<F, T>(&mut self, name: &'static str, task: F)
    where
        F: FnOnce(Shutdown, TaskStatus) -> T,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let status = self.health.task(name);
        let id = self.running.spawn(task(self.shutdown.clone(), status.clone())).id();
        self.statuses.push((id, name, status));
    }

    /// Runs until a signal comes or a task ends, then brings everything to its end.
    pub async fn run(mut self, mut signal: StopSignal, timing: Timing) -> Exit {
        tokio::select! {
            () = signal.received() => {}
            () = self.one_ended() => {}
        }
        tokio::spawn(async move {
            signal.received().await;
            tracing::warn!("second signal: ending at once");
            std::process::exit(Exit::DrainUnfinished as i32);
        });
        if !self.failed {
            tracing::info!(delay = ?timing.readiness_delay, "stopping: not ready any more");
            self.shutdown.requested.cancel();
            drop(timeout(timing.readiness_delay, self.one_ended()).await);
        }
        tracing::info!(grace = ?timing.grace, "draining");
        self.shutdown.drain_now();
        let drained = timeout(timing.grace, self.all_ended()).await.is_ok();
        if !drained {
            let left: Vec<_> = self.statuses.iter().map(|(_, name, _)| *name).collect();
            tracing::warn!(tasks = ?left, "the drain did not finish in time; what is left is kept in the database");
        }
        self.running.shutdown().await;
        match (self.failed, drained) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::Stopped,
            (false, false) => Exit::DrainUnfinished,
        }
    }

    async fn one_ended(&mut self) {
        match self.running.join_next_with_id().await {
            Some(end) => self.note(end),
            None => std::future::pending().await,
        }
    }

    async fn all_ended(&mut self) {
        while let Some(end) = self.running.join_next_with_id().await {
            self.note(end);
        }
    }

    fn note(&mut self, end: Result<(Id, anyhow::Result<()>), JoinError>) {
        let (id, result) = match end {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(anyhow::anyhow!("panicked"))),
        };
        let index = self.statuses.iter().position(|(known, ..)| *known == id).expect("every task was spawned here");
        let (_, name, status) = self.statuses.swap_remove(index);
        status.ended(result.as_ref().err());
        match result {
            Ok(()) if self.shutdown.is_draining() => tracing::debug!(task = name, "task ended"),
            Ok(()) => {
                self.failed = true;
                tracing::error!(task = name, "task ended before it was told to");
            }
            Err(error) => {
                self.failed = true;
                tracing::error!(task = name, error = format!("{error:#}"), "task failed");
            }
        }
    }
}

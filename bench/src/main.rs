//! Measures the services as they are shipped, on the servers of `dev/with-stack`, against what they
//! could be replaced by. Every run checks by id that the work was done: a fast wrong run is void.

mod announced;
mod announcements;
mod auth;
mod backlog;
mod changes;
mod client;
mod connections;
mod consume;
mod cpu;
mod drain;
mod figures;
mod freshness;
mod instances;
mod latency;
mod lists;
mod memory;
mod orders;
mod outage;
mod pairs;
mod peers;
mod pgbench;
mod polling_loop;
mod purge;
mod replay;
mod retention;
mod scale;
mod services;
mod snapshot;
mod start;
mod storage;
mod takeover;
mod telemetry;
mod topic;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use figures::Report;
use scale::Scale;
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

/// Measures speed and memory; prints a table and writes target/bench/NAME.json
#[derive(Parser)]
struct Arguments {
    /// Few and small runs, to see that the measurements work: the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Pairs of runs, instead of 5; rounds of make peers, instead of 2
    #[arg(long)]
    pairs: Option<usize>,
    /// Messages of a large backlog, instead of 1,000,000
    #[arg(long)]
    backlog: Option<i64>,
    /// Published messages beside it, instead of 5,000,000
    #[arg(long)]
    published: Option<i64>,
    /// Seconds that a snapshot is held at full load, instead of 120
    #[arg(long)]
    held: Option<u64>,
    /// Connections that orders come over, instead of 32
    #[arg(long)]
    connections: Option<usize>,
    /// What to measure; if none is given, everything that needs no programs of others
    names: Vec<Measurement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// POST /orders against pgbench with the same statement
    Orders,
    /// A backlog published and marked, against a plain polling loop
    Drain,
    /// Messages counted, against the same SQL without Kafka
    Consume,
    /// Thirty days of messages read again, against the first time
    Replay,
    /// From when an order is due to its message on the topic
    Latency,
    /// From when an order is due to its figure, and how far the figures are complete meanwhile
    Freshness,
    /// CPU time of an order with what the service tells of itself, against none
    Telemetry,
    /// The first page of the lists and one far behind it, of a great many orders
    Lists,
    /// Resident memory under load and with a backlog
    Memory,
    /// An instance at rest: its program, its start, its memory
    Start,
    /// POST /orders over 8 to 512 connections
    Connections,
    /// CPU time of an order with authentication and without
    Auth,
    /// What the row of the audit costs an order that ends
    Changes,
    /// POST /orders while a day of messages is dropped, against the same without
    Purge,
    /// Orders while a day of messages and a day of keys go, against the same without
    Retention,
    /// What an order costs Postgres, against the release before the outbox was a log (BASELINE_BIN_DIR)
    Storage,
    /// Orders while somebody keeps a snapshot, against the same without
    Snapshot,
    /// Several instances of each service, against one
    Instances,
    /// A backlog of orders while Kafka is away, one instance killed, three started
    Outage,
    /// How soon a dead instance's messages are sent beside many others, against few
    Takeover,
    /// A backlog drained, against a polling loop and Debezium (make peers)
    Relay,
    /// Milliseconds to the topic at fixed rates, against Debezium (make peers)
    Delay,
    /// From kill -9 to the first message, against Debezium (make peers)
    Death,
    /// Messages counted by day, against Kafka Streams (make peers)
    Days,
    /// POST /orders against pgbench, single statements and TPC-B-like (make peers)
    Placing,
    /// What librdkafka alone can write (make peers)
    Producing,
    /// POST /orders against the release before the outbox was a log (BASELINE_BIN_DIR)
    Before,
}

impl Measurement {
    /// Whether it needs what make bench does not provide: programs of others, or binaries of an older release.
    const fn needs_more(self) -> bool {
        matches!(
            self,
            Self::Relay
                | Self::Delay
                | Self::Death
                | Self::Days
                | Self::Placing
                | Self::Producing
                | Self::Before
                | Self::Storage
        )
    }

    async fn measure(self, scale: &Scale) -> Result<Report> {
        match self {
            Self::Orders => orders::measure(scale).await,
            Self::Drain => drain::measure(scale).await,
            Self::Consume => consume::measure(scale).await,
            Self::Replay => replay::measure(scale).await,
            Self::Latency => latency::measure(scale).await,
            Self::Freshness => freshness::measure(scale).await,
            Self::Telemetry => telemetry::measure(scale).await,
            Self::Lists => lists::measure(scale).await,
            Self::Memory => memory::measure(scale).await,
            Self::Start => start::measure(scale).await,
            Self::Connections => connections::measure(scale).await,
            Self::Auth => auth::measure(scale).await,
            Self::Changes => changes::measure(scale).await,
            Self::Purge => purge::measure(scale).await,
            Self::Retention => retention::measure(scale).await,
            Self::Storage => storage::measure(scale).await,
            Self::Snapshot => snapshot::measure(scale).await,
            Self::Instances => instances::measure(scale).await,
            Self::Outage => outage::measure(scale).await,
            Self::Takeover => takeover::measure(scale).await,
            Self::Relay => peers::relay::measure(scale).await,
            Self::Delay => peers::delay::measure(scale).await,
            Self::Death => peers::death::measure(scale).await,
            Self::Days => peers::days::measure(scale).await,
            Self::Placing => peers::placing::measure(scale).await,
            Self::Producing => peers::producing::measure(scale).await,
            Self::Before => peers::before::measure(scale).await,
        }
    }
}

/// One thread: the load shares few cores with what it measures, and waking another thread for each
/// answer would cost more than the answer.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    // What is dropped on the way out ends its services and drops its databases.
    tokio::select! {
        code = measure(arguments) => code,
        _ = terminated.recv() => Ok(ExitCode::FAILURE),
        interrupted = ctrl_c() => interrupted.map(|()| ExitCode::FAILURE).map_err(Into::into),
    }
}

async fn measure(arguments: Arguments) -> Result<ExitCode> {
    let mut scale = if arguments.quick { Scale::quick() } else { Scale::full() };
    scale.rounds = arguments.pairs.unwrap_or(scale.rounds).max(1);
    scale.pairs = arguments.pairs.unwrap_or(scale.pairs).max(1);
    scale.large_backlog = arguments.backlog.unwrap_or(scale.large_backlog);
    scale.large_published = arguments.published.unwrap_or(scale.large_published);
    scale.held_for = arguments.held.map_or(scale.held_for, Duration::from_secs);
    scale.connections = arguments.connections.unwrap_or(scale.connections).max(2);
    let all: Vec<_> = Measurement::value_variants().iter().copied().filter(|one| !one.needs_more()).collect();
    let names = if arguments.names.is_empty() { &all } else { &arguments.names };
    let mut reports = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match name.measure(&scale).await {
            Ok(report) => {
                report.save(&scale)?;
                reports.push(report);
            }
            Err(error) => {
                eprintln!("{name:?}: void: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    figures::print(&reports, &scale);
    Ok(code)
}

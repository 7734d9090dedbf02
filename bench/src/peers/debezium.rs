//! Debezium's connector for Postgres and its outbox event router, on a Kafka Connect of their own.

use std::{fmt, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use testing::{Database, Topic};
use tokio::time::{Instant, sleep};

use super::process::Process;

const WORKER: &str = include_str!("../../../dev/peers/connect.properties");
const CONNECTOR: &str = include_str!("../../../dev/peers/debezium.properties");
const WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    AsShipped,
    /// For rows a second.
    Tuned,
    /// For milliseconds.
    LowLatency,
}

impl Tuning {
    pub const ALL: [Self; 3] = [Self::AsShipped, Self::Tuned, Self::LowLatency];

    const fn settings(self) -> &'static str {
        match self {
            Self::AsShipped => "",
            Self::Tuned => include_str!("../../../dev/peers/tuned.properties"),
            Self::LowLatency => include_str!("../../../dev/peers/low-latency.properties"),
        }
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsShipped => "Debezium as shipped",
            Self::Tuned => "Debezium tuned",
            Self::LowLatency => "Debezium at its lowest latency",
        })
    }
}

/// What it is run with; keeps its offsets from one run to the next.
pub struct Debezium {
    home: TempDir,
}

impl Debezium {
    pub fn of(database: &Database, topic: &Topic, tuning: Tuning) -> Result<Self> {
        let home = tempfile::tempdir().context("a folder for Connect")?;
        let url = database.superuser_url();
        let name = url.rsplit('/').next().context("a URL without a database")?;
        let port = database.address().rsplit(':').next().context("an address without a port")?;
        let folder = home.path().display().to_string();
        let values = [
            ("@BROKERS@", topic.brokers.as_str()),
            ("@HOME@", &folder),
            ("@PORT@", port),
            ("@DATABASE@", name),
            ("@TOPIC@", &topic.name),
        ];
        let fill = |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        fs::write(home.path().join("worker.properties"), fill(WORKER)).context("the settings of Connect")?;
        let connector = fill(CONNECTOR) + "\n" + tuning.settings();
        fs::write(home.path().join("connector.properties"), connector).context("the settings of Debezium")?;
        Ok(Self { home })
    }

    pub fn spawn(&self) -> Result<Process> {
        let files = ["worker.properties", "connector.properties"];
        let files = files.map(|name| self.home.path().join(name).display().to_string());
        Process::java(self.home.path(), "org.apache.kafka.connect.cli.ConnectStandalone", &files, &[])
    }

    /// Starts it and waits until it reads the slot.
    pub async fn start(&self, database: &Database) -> Result<Process> {
        let mut process = self.spawn()?;
        let end = Instant::now() + WITHIN;
        let reads = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'debezium' AND active";
        while database.number(reads).await == 0 {
            process.lives()?;
            ensure!(Instant::now() < end, "Debezium does not read its slot:\n{}", process.last_lines());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }
}

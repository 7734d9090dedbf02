//! A peer as a process of its own: what it uses, what it says, and that it ends with the measurement.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use super::folder;
use crate::services::megabytes;

/// What both peers of the JVM get: enough for all that is measured, and the collector that takes the least memory.
const JVM: [&str; 3] = ["-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.showDateTime=true"];

#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// A class of the peers' jars, with its log in a file of `home`.
    pub fn java(home: &Path, class: &str, arguments: &[String], environment: &[(&str, &str)]) -> Result<Self> {
        let jars = folder()?;
        let path = format!("{}:{}/*", jars.join("classes").display(), jars.join("jars").display());
        let mut command = Command::new("java");
        command.args(JVM).args(["-cp", &path, class]).args(arguments).envs(environment.iter().copied());
        Self::spawn(command, home.join("log"))
    }

    fn spawn(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log).context("the log of a peer")?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        let child = command.spawn().context("a peer cannot be started")?;
        Ok(Self { child, log })
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.id().context("a peer has ended")
    }

    /// The most it ever had resident.
    pub fn memory_mb(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).context("the memory of a peer")?;
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = most.and_then(|most| most.trim().trim_end_matches(" kB").parse::<u32>().ok());
        Ok(megabytes(u64::from(kilobytes.context("the memory of a peer")?) * 1024))
    }

    /// An error, with the end of its log, where it has ended by itself.
    pub fn lives(&mut self) -> Result<()> {
        let ended = self.child.try_wait().context("a peer")?;
        ensure!(ended.is_none(), "a peer ended by itself; the last lines of its log:\n{}", self.last_lines());
        Ok(())
    }

    pub fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Kill -9, and waits until it is gone.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("a peer cannot be killed")
    }
}

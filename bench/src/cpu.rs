//! CPU time that processes have used, user and system together, from /proc.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use testing::{Database, Service};

/// Linux counts in hundredths of a second, whatever the kernel's own tick.
const TICK: Duration = Duration::from_millis(10);

/// Of a service that runs.
pub fn of_service(service: &Service) -> Result<Duration> {
    of_process(service.pid())
}

pub fn of_process(pid: u32) -> Result<Duration> {
    ticks(&format!("/proc/{pid}"), &[UTIME, STIME])
}

/// Of all processes of the server, those included that have ended: a session's time is added to the
/// postmaster's when it ends.
pub async fn of_postgres(database: &Database) -> Result<Duration> {
    let folder: String =
        sqlx::query_scalar("SHOW data_directory").fetch_one(&database.pool).await.context("where its data are")?;
    let folder = Path::new(&folder).canonicalize().context("the folder of its data")?;
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc").context("/proc")? {
        let process = entry.context("/proc")?.path();
        if fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder) {
            // One that has just ended is with the postmaster, now or when it is read.
            sum += ticks(&process.display().to_string(), &[UTIME, STIME, CUTIME, CSTIME]).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Fields of /proc/PID/stat, counted behind the name of the program.
const UTIME: usize = 11;
const STIME: usize = 12;
const CUTIME: usize = 13;
const CSTIME: usize = 14;

fn ticks(process: &str, fields: &[usize]) -> Result<Duration> {
    let text = fs::read_to_string(format!("{process}/stat")).with_context(|| format!("{process}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").context("stat has no name")?;
    let all: Vec<_> = rest.split(' ').collect();
    let mut sum = 0;
    for field in fields {
        sum += all.get(*field).and_then(|text| text.parse::<u32>().ok()).context("stat has fewer fields")?;
    }
    Ok(TICK * sum)
}

//! A server of a test's own: one of the stack's scripts, which leaves its pid to the server.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, LazyLock},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use uuid::Uuid;

use crate::root;

/// Servers that tests run at the same time: each Kafka takes 400 MB, and two cores start them slowly.
static ROOM: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(3)));

#[derive(Debug)]
pub(crate) struct Server {
    script: &'static str,
    home: TempDir,
    pub(crate) port: u16,
    /// Further arguments of the script.
    pub(crate) arguments: Vec<String>,
    child: Option<Child>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Server {
    pub(crate) async fn stopped(script: &'static str) -> Self {
        let room = Arc::clone(&ROOM).acquire_owned().await.unwrap();
        let mut server = Self::beside(script);
        server._room = Some(room);
        server
    }

    /// One that belongs to another server. It takes no room: a test that holds some and waits for more could
    /// wait for a test that does the same.
    pub(crate) fn beside(script: &'static str) -> Self {
        Self { script, home: scratch(), port: free_port(), arguments: Vec::new(), child: None, _room: None }
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.script);
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let child = Command::new(root().join("dev").join(self.script))
            .arg(self.home.path().join("server"))
            .arg(self.port.to_string())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Asks the server to end, and waits until it has.
    pub(crate) async fn stop(&mut self, how: Signal) {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), how);
        timeout(Duration::from_secs(60), child.wait()).await.expect("it stops when told to").unwrap();
    }

    pub(crate) async fn kill(&mut self) {
        self.child.take().expect("it runs").kill().await.unwrap();
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.child.as_ref().and_then(Child::id), which);
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("server/data")
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail(self.script, &self.log(), 15);
        }
    }
}

/// A folder that is gone when it is dropped. Not in /tmp, which may be small or in memory.
pub(crate) fn scratch() -> TempDir {
    let parent = root().join(".dev");
    std::fs::create_dir_all(&parent).unwrap();
    tempfile::Builder::new().prefix("test.").tempdir_in(parent).unwrap()
}

/// Below the range of outgoing connections, so that a stopped server finds its port free again.
pub(crate) fn free_port() -> u16 {
    let candidates = std::iter::repeat_with(|| 10_240 + random() % 20_000);
    let mut free = candidates.take(100).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}

fn random() -> u16 {
    let bytes = Uuid::now_v7().into_bytes();
    u16::from_be_bytes([bytes[14], bytes[15]])
}

pub(crate) fn signal(pid: Option<u32>, signal: Signal) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).expect("the process has not ended");
    kill_process(pid, signal).unwrap();
}

pub(crate) fn print_tail(of: &str, log: &Path, lines: usize) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    eprintln!("--- the last lines of {of}'s log:\n{}", all[all.len().saturating_sub(lines)..].join("\n"));
}

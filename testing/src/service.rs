use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

pub use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    AUDIENCE, ISSUER, Scrape, Signer,
    server::{print_tail, scratch, signal},
    wait_until,
};

/// A binary of the workspace, built with the tests.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
    let found = folder.join(name);
    assert!(found.exists(), "{name} is not built: run make test");
    found
}

/// A binary as it was before the newest migration, which `make upgrade` has built.
///
/// # Panics
/// It has not.
#[must_use]
pub fn binary_before(name: &str) -> PathBuf {
    let folder = std::env::var_os("BEFORE_BIN_DIR").expect("BEFORE_BIN_DIR is not set: run make upgrade");
    PathBuf::from(folder).join(name)
}

/// How a service is to be run: its binary, its settings by their names in the contract, and the
/// points at which it is to break.
#[derive(Clone, Debug)]
pub struct Setup {
    binary: PathBuf,
    settings: Vec<(String, String)>,
    failpoints: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// With free ports and without authentication.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into(), settings: Vec::new(), failpoints: Vec::new(), variables: Vec::new() }
            .set("http.bind", "127.0.0.1:0")
            .set("management.bind", "127.0.0.1:0")
            .set("auth.mode", "disabled")
            .set("shutdown.readiness_delay", "0s")
    }

    /// Without any setting.
    #[must_use]
    pub fn bare(binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into(), settings: Vec::new(), failpoints: Vec::new(), variables: Vec::new() }
    }

    /// The same, of another binary.
    #[must_use]
    pub fn of(self, binary: PathBuf) -> Self {
        Self { binary, ..self }
    }

    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// With authentication, by the key of `signer`.
    #[must_use]
    pub fn trusting(self, signer: &Signer) -> Self {
        self.expecting_tokens().set("auth.public_key_file", signer.public_key_file().display())
    }

    /// With authentication, by the keys that the address answers.
    #[must_use]
    pub fn trusting_issuer(self, url: &str) -> Self {
        self.expecting_tokens().set("auth.jwks_url", url)
    }

    /// With authentication, by the keys of a set in a file.
    #[must_use]
    pub fn trusting_file(self, path: &std::path::Path) -> Self {
        self.expecting_tokens().set("auth.jwks_file", path.display())
    }

    fn expecting_tokens(self) -> Self {
        self.set("auth.mode", "jwt").set("auth.issuer", ISSUER).set("auth.audience", AUDIENCE)
    }

    /// `action` in the notation of the crate fail: `return`, `1*return`, `50%pause`.
    #[must_use]
    pub fn failpoint(mut self, name: &str, action: &str) -> Self {
        self.failpoints.push(format!("{name}={action}"));
        self
    }

    /// A variable of the environment that is no setting of the service.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a command of the binary to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let done = self.command().args(arguments).output();
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("the command ends").unwrap()
    }

    /// Starts a command of the binary and does not wait for its end.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn begin(&self, arguments: &[&str]) -> Child {
        self.command().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The exit code of a command whose output nobody reads: a pipe that is closed, and a disk that is full.
    ///
    /// # Panics
    /// It does not end.
    pub async fn run_unread(&self, arguments: &[&str]) -> [(Option<i32>, String); 2] {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let run = async |out: Stdio| {
            let child = self.command().args(arguments).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
            let done = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
            let done = done.await.expect("the command ends").unwrap();
            (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
        };
        [run(closed.into()).await, run(full.into()).await]
    }

    /// Starts the service; it may not be ready yet.
    #[must_use]
    pub fn spawn(&self) -> Service {
        let home = scratch();
        let log = File::create(home.path().join("log")).unwrap();
        let child = self.command().arg("serve").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Service { home, child, name: self.name() }
    }

    /// Starts the service and waits until it wants traffic.
    pub async fn start(&self) -> Service {
        let mut service = self.spawn();
        service.ready().await;
        service
    }

    fn name(&self) -> String {
        self.binary.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn command(&self) -> Command {
        let prefix = self.name().replace('-', "_").to_uppercase();
        let mut command = Command::new(&self.binary);
        command.env_remove("DATABASE_URL").env_remove("RUST_LOG").env("FAILPOINTS", self.failpoints.join(";"));
        for (name, value) in &self.settings {
            let name = match name.strip_prefix("kafka.properties.") {
                Some(property) => format!("kafka__properties__{}", property.replace('.', "_")),
                None => name.replace('.', "__"),
            };
            command.env(format!("{prefix}__{}", name.to_uppercase()), value);
        }
        command.envs(self.variables.iter().cloned()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    home: TempDir,
    child: Child,
    name: String,
}

impl Service {
    /// Waits until it wants traffic, and until its log, which is written behind its back, says where.
    ///
    /// # Panics
    /// It ends instead, or does not within 30 s.
    pub async fn ready(&mut self) {
        wait_until("the service is ready", Duration::from_secs(30), async || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended instead of becoming ready: {}", self.name, ended.unwrap());
            self.probe("ready").await == Some(200) && self.address("api").is_some()
        })
        .await;
    }

    /// The status that a probe answers; none where the management port does not answer.
    pub async fn probe(&self, name: &str) -> Option<u16> {
        let url = format!("{}/health/{name}", self.address("management")?);
        let asked = reqwest::Client::new().get(url).timeout(Duration::from_secs(5)).send().await;
        asked.ok().map(|answer| answer.status().as_u16())
    }

    /// What the probe of readiness tells about the components.
    pub async fn health(&self) -> Value {
        let url = format!("{}/health/ready", self.management());
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }

    /// What it tells on `/metrics`.
    pub async fn metrics(&self) -> Scrape {
        let answer = reqwest::get(format!("{}/metrics", self.management())).await.unwrap();
        Scrape::parse(&answer.text().await.unwrap())
    }

    /// Where the API is: `http://127.0.0.1:PORT`.
    ///
    /// # Panics
    /// It does not listen yet.
    #[must_use]
    pub fn api(&self) -> String {
        self.address("api").expect("the API listens")
    }

    #[must_use]
    pub fn management(&self) -> String {
        self.address("management").expect("the management port listens")
    }

    fn address(&self, server: &str) -> Option<String> {
        let listening = |line: &Value| line["message"] == "listening" && line["server"] == server;
        let found = self.log().into_iter().find(listening)?;
        Some(format!("http://{}", found["server.address"].as_str()?))
    }

    /// What it has logged so far; a line that is not JSON is a text.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_file()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into())).collect()
    }

    /// Whether a line of the log has this message.
    #[must_use]
    pub fn has_logged(&self, message: &str) -> bool {
        self.log().iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(message)))
    }

    /// Kill -9, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        signal(self.child.id(), Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        signal(self.child.id(), Signal::CONT);
    }

    pub fn signal(&self, which: Signal) {
        signal(self.child.id(), which);
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal(self.child.id(), Signal::TERM);
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// It does not end within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end within {limit:?}", self.name)).unwrap()
    }

    /// SIGTERM, and the exit code. The log of one that did not stop as it should is printed: its file goes with it.
    pub async fn stop(mut self) -> Option<i32> {
        self.terminate();
        let code = self.ended(Duration::from_secs(30)).await.code();
        if code != Some(0) {
            eprintln!("{} ended with {code:?}:", self.name);
            for line in self.log() {
                eprintln!("{line}");
            }
        }
        code
    }

    /// # Panics
    /// It has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Resident memory in bytes: now, and at most so far.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        (self.status("VmRSS:"), self.status("VmHWM:"))
    }

    /// What it has had at most in bytes, without the pages of the program itself: a build without optimisation has
    /// three times as many of those.
    #[must_use]
    pub fn own_memory(&self) -> u64 {
        self.status("VmHWM:") - self.status("RssFile:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How many files and connections it has open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id().expect("it runs"))).unwrap().count()
    }

    /// CPU time so far, in user and kernel mode.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id().expect("it runs"))).unwrap();
        // Behind the name, which may hold anything: the 12th and 13th, in ticks of 10 ms.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    fn log_file(&self) -> PathBuf {
        self.home.path().join("log")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail(&self.name, &self.log_file(), 25);
        }
    }
}

use std::{
    io::Write,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    root,
    server::{free_port, print_tail, scratch},
    wait_until,
};

/// A Prometheus of a test's own: once a second it scrapes some services.
#[derive(Debug)]
pub struct Prometheus {
    home: TempDir,
    port: u16,
    begun: f64,
    _child: Child,
}

/// What a query answers of one series: seconds since the start, and values.
pub type Series = Vec<(usize, f64)>;

impl Prometheus {
    /// `targets` are names of jobs, with the address that each is scraped at: `http://HOST:PORT`.
    ///
    /// # Panics
    /// It is not in the PATH, or does not start.
    pub async fn start(targets: &[(&str, String)]) -> Self {
        let (home, port) = (scratch(), free_port());
        let jobs = targets.iter().map(|(job, address)| {
            let address = address.trim_start_matches("http://");
            json!({"job_name": job, "static_configs": [{"targets": [address]}]})
        });
        // JSON is YAML.
        let config = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs.collect::<Vec<_>>()});
        let file = home.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus is in the PATH: run make test");
        let prometheus = Self { home, port, begun: now(), _child: child };
        wait_until("Prometheus has scraped everything", Duration::from_secs(60), async || {
            let up = prometheus.ask("query", &[("query", "sum(up)")]).await;
            up.is_some_and(|up| up["result"][0]["value"][1] == targets.len().to_string().as_str())
        })
        .await;
        prometheus
    }

    /// Every series of a query from the start until now, a value a second. What is not a number is left out.
    ///
    /// # Panics
    /// Prometheus refuses the query.
    pub async fn history(&self, query: &str) -> Vec<Series> {
        let (start, end) = (self.begun.to_string(), now().to_string());
        let asked = [("query", query), ("start", &start), ("end", &end), ("step", "1")];
        let answer = self.ask("query_range", &asked).await.unwrap_or_else(|| panic!("refused: {query}"));
        let series = answer["result"].as_array().expect("a range query answers a matrix").iter();
        let values =
            series.map(|one| one["values"].as_array().unwrap().iter().filter_map(|pair| self.sample(pair)).collect());
        values.collect()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test lasts minutes")]
    fn sample(&self, pair: &Value) -> Option<(usize, f64)> {
        let (time, value): (f64, f64) = (pair[0].as_f64()?, pair[1].as_str()?.parse().ok()?);
        value.is_finite().then_some(((time - self.begun).round() as usize, value))
    }

    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/api/v1/{what}", self.port);
        let asked = reqwest::Client::new().get(url).query(parameters).timeout(Duration::from_secs(10)).send().await;
        let answer: Value = asked.ok()?.json().await.ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_tail("prometheus", &self.home.path().join("log"), 15);
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// `promtool test rules`, of the rules in `deploy/observability` and of `test`, which is JSON.
///
/// # Panics
/// It does not end as it should.
pub async fn rules_hold(test: &Value) {
    let home = scratch();
    let file = home.path().join("test.yml");
    std::fs::write(&file, test.to_string()).unwrap();
    let done = Command::new("promtool").args(["test", "rules"]).arg(&file).output();
    let done = done.await.expect("promtool is in the PATH: run make test");
    let told = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success(), "{told}\n{test}");
}

/// `promtool check metrics`: names, units and kinds that others expect.
///
/// # Panics
/// It finds something.
pub(crate) fn check_metrics(scrape: &str) {
    let mut promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is in the PATH: run make test");
    // It reads everything before it says anything.
    promtool.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let done = promtool.wait_with_output().unwrap();
    let told = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success(), "{told}");
}

/// A file of `deploy/observability`.
#[must_use]
pub fn observability(file: impl AsRef<Path>) -> std::path::PathBuf {
    root().join("deploy/observability").join(file)
}

//! A caller that keeps to no rules: bytes over a connection, and what comes back.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// However loaded the machine is, the service is done with a connection within this time.
const ENDED_WITHIN: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct Raw(TcpStream);

/// One answer as it came over the connection; names of headers in small letters.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Raw {
    /// `api` is `http://HOST:PORT`.
    ///
    /// # Panics
    /// Nobody listens.
    pub async fn connect(api: &str) -> Self {
        Self(TcpStream::connect(api.trim_start_matches("http://")).await.unwrap())
    }

    /// Whether the other side still took it.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// No more will be sent.
    pub async fn finish(&mut self) {
        drop(self.0.shutdown().await);
    }

    /// Everything that comes until the other side closes, or resets, the connection.
    ///
    /// # Panics
    /// It does neither in time.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let read = timeout(ENDED_WITHIN, self.0.read_to_end(&mut all)).await;
        drop(read.unwrap_or_else(|_| panic!("not closed: {}", String::from_utf8_lossy(&all))));
        all
    }

    /// The next answer with a `content-length`, on a connection that goes on.
    ///
    /// # Panics
    /// There is none.
    pub async fn answer(&mut self) -> RawAnswer {
        let mut all = Vec::new();
        loop {
            let read = timeout(ENDED_WITHIN, self.0.read_buf(&mut all)).await.expect("it answers").unwrap();
            if let Some((answer, left)) = RawAnswer::first(&all) {
                assert!(left.is_empty(), "one answer at a time");
                return answer;
            }
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&all));
        }
    }
}

impl RawAnswer {
    /// All answers in `bytes`.
    ///
    /// # Panics
    /// The last one is not whole.
    #[must_use]
    pub fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (answer, left) =
                Self::first(bytes).unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(bytes)));
            found.push(answer);
            bytes = left;
        }
        found
    }

    fn first(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap().parse().unwrap();
        let headers = headers.lines().map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        });
        let mut answer = Self { status, headers: headers.collect(), body: Vec::new() };
        let length = answer.header("content-length").parse().unwrap_or(0);
        let body = &bytes[end + 4..];
        answer.body = body.get(..length)?.to_vec();
        Some((answer, &body[length..]))
    }

    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// # Panics
    /// It is not a complete problem, with what every answer carries.
    pub fn is_problem(&self) {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{self:?}");
        assert_eq!(self.header("server"), "", "{self:?}");
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert_eq!(problem["requestId"], self.header("x-request-id"), "{self:?}");
        for text in ["type", "title", "detail", "instance", "requestId"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
    }
}

/// Lets this process open so many files more; many systems give it 1,024 at first.
///
/// # Panics
/// It may not.
pub fn allow_files(more: u64) {
    let limit = getrlimit(Resource::Nofile);
    let needed = more + 1024;
    if limit.current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit }).unwrap();
    }
}

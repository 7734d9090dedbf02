//! A word that is sent where secrets and personal data are, to see where it comes out again.

use reqwest::Method;

use crate::{Answer, Client, Service};

pub const CANARY: &str = "canary7f3a9";

/// A request that is refused.
#[derive(Debug)]
pub struct Errand {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Errand {
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn json(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", "application/json")
    }

    /// # Panics
    /// It is not refused, or the answer tells the word.
    pub async fn run(&self, client: &Client) {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = client.ask(self.method.clone(), &self.path, &headers, self.body.clone()).await.unwrap();
        assert!(answer.status >= 400, "{self:?}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{self:?}: {answer:?}");
        assert!(!tells(&answer), "{self:?}: {answer:?}");
    }
}

/// Every header that may hold something secret, on a path that is not there.
#[must_use]
pub fn headers_of_all_kinds() -> Vec<Errand> {
    let named = [
        ("authorization", format!("Bearer {CANARY}")),
        ("authorization", format!("Basic {CANARY}")),
        ("authorization", CANARY.into()),
        ("cookie", format!("session={CANARY}")),
        ("idempotency-key", CANARY.into()),
        ("x-request-id", format!("{CANARY} no name")),
        ("traceparent", format!("00-{CANARY}-00")),
        ("tracestate", format!("a={CANARY}")),
        ("user-agent", CANARY.into()),
        ("referer", format!("https://x.example/{CANARY}")),
        ("origin", format!("https://{CANARY}.example")),
        ("accept", format!("text/{CANARY}")),
        ("content-type", format!("text/{CANARY}")),
        ("expect", CANARY.into()),
        ("x-forwarded-for", CANARY.into()),
    ];
    named.into_iter().map(|(name, value)| Errand::new(Method::GET, "/nothing").header(name, value)).collect()
}

fn tells(answer: &Answer) -> bool {
    format!("{answer:?}").contains(CANARY)
}

/// The lines of log and metrics that tell the word.
pub async fn told(service: &Service) -> Vec<String> {
    let mut lines: Vec<_> = service.log().iter().map(ToString::to_string).collect();
    let metrics = reqwest::get(format!("{}/metrics", service.management())).await.unwrap();
    lines.extend(metrics.text().await.unwrap().lines().map(str::to_owned));
    lines.retain(|line| line.contains(CANARY));
    lines
}

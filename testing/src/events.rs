//! A reader of server-sent events.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

/// One event; a comment has no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

/// A stream that is open.
#[derive(Debug)]
pub struct Events {
    answer: reqwest::Response,
    unread: Vec<u8>,
}

impl Events {
    /// The stream at `url`, or the status where it is refused.
    ///
    /// # Errors
    /// That status, and `Retry-After`.
    ///
    /// # Panics
    /// There is no answer.
    pub async fn open(url: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let mut request = reqwest::Client::new().get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = timeout(Duration::from_secs(20), request.send()).await.expect("an answer").unwrap();
        if answer.status() != 200 {
            let after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            return Err((answer.status().as_u16(), after.unwrap_or_default()));
        }
        Ok(Self { answer, unread: Vec::new() })
    }

    /// A header of the answer.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.answer.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The next event; none at the end.
    ///
    /// # Panics
    /// Nothing comes within `limit`, or it is no event.
    pub async fn next(&mut self, limit: Duration) -> Option<Event> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Some(parse(std::str::from_utf8(&block).unwrap()));
            }
            // A connection that is cut is an end too.
            let chunk = timeout(limit, self.answer.chunk()).await.expect("an event in time").ok().flatten()?;
            self.unread.extend_from_slice(&chunk);
        }
    }

    /// The next event of this name.
    ///
    /// # Panics
    /// It does not come within `limit` after the one before.
    pub async fn next_of(&mut self, name: &str, limit: Duration) -> Event {
        loop {
            let event = self.next(limit).await.expect("the stream goes on");
            if event.name == name {
                return event;
            }
        }
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event { name: String::new(), id: None, data: Value::Null };
    for line in block.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("event", name)) => event.name = name.to_owned(),
            Some(("id", id)) => event.id = Some(id.to_owned()),
            Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
            _ => assert!(line.starts_with(':'), "{line}"),
        }
    }
    event
}

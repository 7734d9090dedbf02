//! The keys of an issuer, fetched from its URL: again when they have become old, and at once when a
//! token names a key that is not among them.
//!
//! Anybody can make up tokens with unknown keys, so these ask for at most one fetch in
//! [`ASKED_EVERY`]. What was fetched last stays while the issuer is away, for `auth.jwks_max_stale`. An empty list
//! of keys takes all of them back.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use reqwest::{Client, Url, header::ACCEPT, redirect::Policy};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::keys::{Keys, NONE};
use crate::runtime::{health::TaskStatus, lifecycle::Shutdown};

/// At most one fetch in this time is made because a token asks for it.
const ASKED_EVERY: Duration = Duration::from_secs(30);
/// How long a request waits for a fetch that may bring its key.
const PATIENCE: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// The longest answer, in bytes: a set of a hundred RSA keys.
const ANSWER_LIMIT: usize = 256 * 1024;

/// Fetches the keys.
#[derive(Debug)]
pub struct Issuer {
    url: Url,
    client: Client,
    max_age: Duration,
    max_stale: Duration,
    asked_every: Duration,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
}

#[derive(Clone, Debug)]
struct State {
    /// As they were answered, and read.
    keys: Option<(Vec<u8>, Arc<Keys>)>,
    /// Until when they are good if the issuer does not answer again.
    stale_at: Instant,
    /// Fetches that have ended, well or not.
    looks: u64,
    looking: bool,
    /// Before that no token can ask for a fetch.
    deaf_until: Instant,
}

/// The keys as the requests see them.
#[derive(Clone, Debug)]
pub(super) struct Known {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
}

impl Known {
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        let state = self.state.borrow();
        let known = state.keys.as_ref().filter(|_| Instant::now() < state.stale_at);
        known.map(|(_, keys)| Arc::clone(keys))
    }

    /// Waits for a fetch, if one is under way or can be asked for; whether one has ended.
    pub(super) async fn looked_again(&self) -> bool {
        let mut state = self.state.clone();
        let looks = {
            let now = state.borrow();
            if !now.looking {
                if Instant::now() < now.deaf_until {
                    return false;
                }
                self.wanted.notify_one();
            }
            now.looks
        };
        timeout(PATIENCE, state.wait_for(|now| now.looks > looks)).await.is_ok_and(|ended| ended.is_ok())
    }
}

impl Issuer {
    pub(super) fn new(url: Url, max_age: Duration, max_stale: Duration) -> anyhow::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(FETCH_WITHIN)
            // The keys are those of the address that was configured, and of no other.
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .context("cannot make the client that fetches auth.jwks_url")?;
        let now = Instant::now();
        let state = State { keys: None, stale_at: now, looks: 0, looking: true, deaf_until: now };
        let (state, wanted) = (watch::Sender::new(state), Arc::default());
        Ok(Self { url, client, max_age, max_stale, asked_every: ASKED_EVERY, state, wanted })
    }

    pub(super) fn known(&self) -> Known {
        Known { state: self.state.subscribe(), wanted: Arc::clone(&self.wanted) }
    }

    /// Keeps the keys fresh until the drain begins.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        let (mut pauses, mut told_stale) = (backoff(), false);
        while let Some(looked) = shutdown.unless_draining(self.look()).await {
            let pause = match looked {
                Ok(()) => {
                    told_stale = false;
                    status.ok();
                    pauses = backoff();
                    self.max_age
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    status.failing(&error, "cannot fetch the keys of the issuer; trying again");
                    self.log_if_stale(&mut told_stale);
                    pauses.next().expect("the back-off never ends")
                }
            };
            let next = Instant::now() + pause;
            if shutdown.unless_draining(self.asked_for(next)).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Once for each time that the issuer is away.
    fn log_if_stale(&self, told: &mut bool) {
        let state = self.state.borrow();
        if state.keys.is_some() && state.stale_at <= Instant::now() && !*told {
            *told = true;
            tracing::error!("the keys are older than auth.jwks_max_stale: requests with a token are answered 503");
        }
    }

    /// Until it is time, or a token asks and may.
    async fn asked_for(&self, next: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(next) => return,
                () = self.wanted.notified() => {
                    let now = Instant::now();
                    if now >= self.state.borrow().deaf_until {
                        self.state.send_modify(|state| state.deaf_until = now + self.asked_every);
                        return;
                    }
                }
            }
        }
    }

    async fn look(&self) -> anyhow::Result<()> {
        self.state.send_modify(|state| state.looking = true);
        let fetched = self.fetch().await.and_then(|text| {
            if self.state.borrow().keys.as_ref().is_some_and(|(known, _)| *known == text) {
                return Ok(None);
            }
            let keys = Keys::of_set(&text).map_err(|rule| anyhow::anyhow!("the answer {rule}"))?;
            // What was never there is not taken back.
            ensure!(keys.len() > 0 || self.state.borrow().keys.is_some(), "the answer {NONE}");
            Ok(Some((text, Arc::new(keys))))
        });
        self.state.send_modify(|state| {
            state.looking = false;
            state.looks += 1;
            if let Ok(keys) = &fetched {
                state.stale_at = Instant::now() + self.max_stale;
                state.keys = keys.clone().or(state.keys.take());
            }
        });
        match fetched? {
            Some((_, keys)) if keys.len() == 0 => {
                tracing::error!("the issuer has taken back all keys that can be used: every token is refused");
            }
            Some((_, keys)) => tracing::info!(keys = keys.len(), "the issuer has new keys"),
            None => {}
        }
        Ok(())
    }

    async fn fetch(&self) -> anyhow::Result<Vec<u8>> {
        let asked = self.client.get(self.url.clone()).header(ACCEPT, "application/json").send().await;
        let mut answer = asked.map_err(reqwest::Error::without_url)?;
        ensure!(answer.status() == reqwest::StatusCode::OK, "the answer is {}", answer.status());
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
            ensure!(body.len() + part.len() <= ANSWER_LIMIT, "the answer is longer than {ANSWER_LIMIT} bytes");
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

/// The pause after a fetch that failed: an issuer that is back is not waited for long.
fn backoff() -> impl Iterator<Item = Duration> + Send {
    crate::runtime::backoff::backoff(Duration::from_millis(500), Duration::from_secs(15))
}

#[cfg(test)]
mod tests;

//! librdkafka keeps the secrets that a client was made with. Where they are in files that somebody writes anew, another
//! client takes the place of the first: of those that only ask as soon as the files have changed, of those that send or
//! read once a broker has refused them. Connections that are open go on until then.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::Instant;

use super::{ClosedAside, Settings, code};
use crate::runtime::config::Secret;

/// How often the files are read while brokers refuse a client.
const READ_EVERY: Duration = Duration::from_secs(1);

type Secrets = BTreeMap<String, Secret>;

impl Settings {
    fn secrets_now(&self) -> Result<Secrets, String> {
        self.secrets.iter().map(|(name, source)| Ok((name.clone(), source.read()?))).collect()
    }
}

/// What one client was made with. Clones are of the same client.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<MadeWith>);

#[derive(Debug)]
struct MadeWith {
    kafka: Settings,
    /// None: a file could not be read.
    secrets: Option<Secrets>,
    is_refused: AtomicBool,
    are_outdated: AtomicBool,
    read_at: Mutex<Option<Instant>>,
}

impl Credentials {
    /// Of a client that is about to be made.
    #[must_use]
    pub fn new(kafka: &Settings) -> Self {
        let made_with = MadeWith {
            kafka: kafka.clone(),
            secrets: kafka.secrets_now().ok(),
            is_refused: AtomicBool::new(false),
            are_outdated: AtomicBool::new(false),
            read_at: Mutex::default(),
        };
        Self(Arc::new(made_with))
    }

    /// Takes an error of the client. That a broker refuses it is told once.
    pub fn note(&self, error: &KafkaError, reason: &str) {
        if code(error) == RDKafkaErrorCode::Authentication && !self.0.is_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "a broker refuses the credentials of this service");
        }
    }

    /// Whether a broker has refused the client, and the files hold other secrets by now: another client may get in.
    #[must_use]
    pub fn are_outdated(&self) -> bool {
        let MadeWith { kafka, secrets, is_refused, are_outdated, read_at } = &*self.0;
        if !is_refused.load(Ordering::Relaxed) || are_outdated.load(Ordering::Relaxed) {
            return are_outdated.load(Ordering::Relaxed);
        }
        let mut read_at = read_at.lock().unwrap_or_else(PoisonError::into_inner);
        if read_at.is_some_and(|at| at.elapsed() < READ_EVERY) {
            return false;
        }
        *read_at = Some(Instant::now());
        // A file that cannot be read may be half written.
        let others = kafka.secrets_now().is_ok_and(|now| secrets.as_ref() != Some(&now));
        are_outdated.store(others, Ordering::Relaxed);
        others
    }
}

type Make<C> = dyn Fn(&Settings) -> anyhow::Result<C> + Send + Sync;

/// A client that asks, or tells what may be told again.
pub struct Renewed<C: Send + 'static> {
    kafka: Settings,
    make: Box<Make<C>>,
    made: Mutex<(Option<Secrets>, Arc<ClosedAside<C>>)>,
}

impl<C: Send + 'static> fmt::Debug for Renewed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed")
    }
}

impl<C: Send + 'static> Renewed<C> {
    /// # Errors
    /// Those of `make`.
    pub fn new(
        kafka: &Settings,
        make: impl Fn(&Settings) -> anyhow::Result<C> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let secrets = kafka.secrets_now().ok();
        let client = Arc::new(ClosedAside::new(make(kafka)?));
        Ok(Self { kafka: kafka.clone(), make: Box::new(make), made: Mutex::new((secrets, client)) })
    }

    /// The client, with what is in the files now.
    pub fn now(&self) -> Arc<ClosedAside<C>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(secrets) = self.kafka.secrets_now()
            && made.0.as_ref() != Some(&secrets)
        {
            match (self.make)(&self.kafka) {
                Ok(client) => *made = (Some(secrets), Arc::new(ClosedAside::new(client))),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        "cannot make a client with the secrets that have changed; the old one goes on"
                    );
                }
            }
        }
        Arc::clone(&made.1)
    }
}

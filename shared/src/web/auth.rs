//! Who calls: every request to the API but those for its documents and pages carries a bearer token, and is
//! refused before any handler sees it where the token is not good.
//!
//! With `auth.mode = "disabled"` everybody is the one anonymous caller, who may do everything.

mod issuer;
mod key_file;
mod keys;
mod mapping;
mod settings;
mod token;
mod verified;

use std::{collections::BTreeSet, future::Ready, sync::Arc};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header::{AUTHORIZATION, HeaderMap},
};
pub use issuer::Issuer;
pub use key_file::KeyFile;
use keys::Keys;
pub use settings::Settings;
use time::OffsetDateTime;
use token::{Refusal, Token, TokenRules};
use tokio::sync::watch;

use crate::{
    contract::customer::CustomerRef,
    runtime::{
        health::TaskStatus,
        lifecycle::{Shutdown, Tasks},
        telemetry::ALWAYS,
    },
    web::problem::Problem,
};

/// The scope of operators.
pub const OPERATIONS: &str = "operations";

/// A caller whose identity is established; handlers take it as a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub issuer: String,
    pub subject: String,
    /// Set where the caller is a customer, who sees and places the orders of this customer only.
    pub customer_ref: Option<CustomerRef>,
    /// From when on the token is not good any more, in seconds since 1970; what goes on for longer ends then.
    pub until: Option<i64>,
    /// None: every scope.
    scopes: Option<BTreeSet<String>>,
    /// The scope that the token lacks to be good for the orders of all customers.
    lacks: Option<Arc<str>>,
}

impl Caller {
    /// Whoever calls while authentication is switched off.
    #[must_use]
    pub fn anonymous() -> Self {
        let subject = "anonymous".into();
        Self { issuer: String::new(), subject, customer_ref: None, until: None, scopes: None, lacks: None }
    }

    /// Whose orders the caller may see and change; none is those of all customers.
    ///
    /// # Errors
    /// 403 for a token that names no customer and has not the scope for all of them.
    pub fn customer(&self) -> Result<Option<&CustomerRef>, Problem> {
        match (&self.customer_ref, &self.lacks) {
            (None, Some(scope)) => {
                let detail = format!("The token names no customer, and has not the scope {scope}.");
                Err(Problem::forbidden(detail).lacking(scope))
            }
            (own, _) => Ok(own.as_ref()),
        }
    }

    #[must_use]
    pub fn may(&self, scope: &str) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope))
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        std::future::ready(caller.ok_or_else(|| Problem::internal(anyhow::anyhow!("a route without authentication"))))
    }
}

/// Tells who sent a request. Clones share their keys.
#[derive(Clone, Debug)]
pub struct Authentication(Mode);

#[derive(Clone, Debug)]
enum Mode {
    Disabled,
    Jwt { expected: Arc<TokenRules>, keys: Source },
}

/// Where the keys are.
#[derive(Clone, Debug)]
enum Source {
    File(watch::Receiver<Arc<Keys>>),
    Issuer(issuer::Known),
}

/// Keeps the keys as their source has them.
#[derive(Debug)]
pub enum KeyRenewal {
    Issuer(Issuer),
    File(KeyFile),
}

impl KeyRenewal {
    /// Until the drain begins.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        match self {
            Self::Issuer(issuer) => issuer.run(shutdown, status).await,
            Self::File(file) => file.run(shutdown, status).await,
        }
    }
}

impl Authentication {
    /// For a port that only those reach who may do everything.
    #[must_use]
    pub fn disabled() -> Self {
        Self(Mode::Disabled)
    }

    #[must_use]
    pub fn is_disabled(&self) -> bool {
        matches!(self.0, Mode::Disabled)
    }

    /// By the settings. Keys of an issuer come by [`KeyRenewal::run`], those of a file are renewed by it.
    ///
    /// # Errors
    /// No HTTP client can be made: the system has no certificates.
    pub fn new(settings: Settings) -> anyhow::Result<(Self, Option<KeyRenewal>)> {
        let (expected, source, renewal) = match settings {
            Settings::Disabled => {
                tracing::warn!(target: ALWAYS, "auth.mode is disabled: whoever reaches the API may do everything");
                return Ok((Self::disabled(), None));
            }
            Settings::File { expected, file } => (expected, Source::File(file.known()), KeyRenewal::File(file)),
            Settings::Issuer { expected, url, max_age, max_stale } => {
                let issuer = Issuer::new(url, max_age, max_stale)?;
                (expected, Source::Issuer(issuer.known()), KeyRenewal::Issuer(issuer))
            }
        };
        Ok((Self(Mode::Jwt { expected: Arc::new(expected), keys: source }), Some(renewal)))
    }

    /// As [`Authentication::new`], with the background task that renews the keys.
    ///
    /// # Errors
    /// Its own.
    pub fn start(settings: Settings, tasks: &mut Tasks) -> anyhow::Result<Self> {
        let (authentication, keys) = Self::new(settings)?;
        if let Some(keys) = keys {
            tasks.spawn("issuer", |shutdown, status| keys.run(shutdown, status));
        }
        Ok(authentication)
    }

    /// # Errors
    /// 401 without a token or with one that is not good, always the same; 503 while there is no key.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Mode::Jwt { expected, keys: source } = &self.0 else { return Ok(Caller::anonymous()) };
        let token = bearer(headers).and_then(|text| Token::parse(text).map_err(Refusal::Bad));
        let verified = match token {
            Ok(token) => match source.verify(&token, expected) {
                // A key that is not known may be a new one.
                Err(Refusal::NoKeys | Refusal::UnknownKey) if source.looked_again().await => {
                    source.verify(&token, expected)
                }
                verified => verified,
            },
            Err(refusal) => Err(refusal),
        };
        verified.map_err(|refusal| {
            tracing::debug!(reason = %refusal, "a token is refused");
            match refusal {
                Refusal::NoKeys => Problem::unavailable(),
                Refusal::UnknownKey | Refusal::Bad(_) => Problem::unauthorized(),
            }
        })
    }
}

impl Source {
    fn verify(&self, token: &Token<'_>, expected: &TokenRules) -> Result<Caller, Refusal> {
        let keys = match self {
            Self::File(known) => Arc::clone(&known.borrow()),
            Self::Issuer(known) => known.keys().ok_or(Refusal::NoKeys)?,
        };
        let now = OffsetDateTime::now_utc().unix_timestamp();
        keys.verified.or_verify(token, now, || token.verify(&keys, expected, now))
    }

    /// Whether the keys may be others now.
    async fn looked_again(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Issuer(known) => known.looked_again().await,
        }
    }
}

/// The one bearer token of a request.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut given = headers.get_all(AUTHORIZATION);
    let (Some(only), None) = (given.next(), given.next()) else {
        return Err(Refusal::Bad("there is not exactly one Authorization header"));
    };
    let (scheme, token) = only.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(Refusal::Bad("it is no bearer token")) }
}

#[cfg(test)]
mod recipes;
#[cfg(test)]
mod tests;

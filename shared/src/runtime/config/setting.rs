//! How each kind of setting is written, checked and shown.

use std::{net::SocketAddr, time::Duration};

use secrecy::{ExposeSecret, SecretString};

/// A kind of setting. `Default` only stands in where a required one is missing.
pub trait Setting: Clone + Default {
    /// # Errors
    /// The rule that the text breaks, as the rest of a sentence: "must be a whole number".
    fn parse(text: &str) -> Result<Self, String>;

    fn show(&self) -> toml::Value;
}

/// A connection URL or password. Printed with what is secret left out.
/// Holds: No secret can be printed.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Secret {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("must not be empty".into()) } else { Ok(Self(text.to_owned().into())) }
    }

    /// Host and database of a URL help the operator; who connects, with what, and with which
    /// parameters does not.
    fn show(&self) -> toml::Value {
        let shown = self.expose().split_once("://").map(|(scheme, rest)| {
            // Whatever stands before the last @, in a path or query too: a password that was not encoded.
            let place = rest.rsplit('@').next().unwrap_or_default();
            let place = place.split(['?', '#']).next().unwrap_or_default();
            format!("{scheme}://***@{place}")
        });
        toml::Value::String(shown.unwrap_or_else(|| "***".into()))
    }
}

/// An address of the web, without a password. What stands in its query may be a secret all the same, and is not shown.
#[derive(Clone)]
pub struct WebUrl(reqwest::Url);

impl WebUrl {
    #[must_use]
    pub fn url(&self) -> &reqwest::Url {
        &self.0
    }

    fn shown(&self) -> String {
        let mut shown = self.0.clone();
        shown.set_fragment(None);
        shown.set_query(self.0.query().map(|_| "***"));
        shown.into()
    }
}

/// Only stands in where a mistake was noted.
impl Default for WebUrl {
    fn default() -> Self {
        Self(reqwest::Url::parse("http://localhost").expect("it is one"))
    }
}

impl std::fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Setting for WebUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let url = reqwest::Url::parse(text.trim()).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        url.map(Self).ok_or_else(|| "must be a URL with https or http, without a user or password".into())
    }

    fn show(&self) -> toml::Value {
        toml::Value::String(self.shown())
    }
}

impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Err("must not be empty".into()) } else { Ok(text.trim().to_owned()) }
    }

    fn show(&self) -> toml::Value {
        toml::Value::String(self.clone())
    }
}

/// A list, written with commas.
impl Setting for Vec<String> {
    fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(|part| String::parse(part).map_err(|_| "must be a list of names with commas".into()))
            .collect()
    }

    fn show(&self) -> toml::Value {
        toml::Value::Array(self.iter().cloned().map(toml::Value::String).collect())
    }
}

macro_rules! whole_number {
    ($($kind:ty)*) => {$(
        impl Setting for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("must be a whole number from {} to {}", <$kind>::MIN, <$kind>::MAX))
            }

            fn show(&self) -> toml::Value {
                toml::Value::Integer(i64::from(*self))
            }
        }
    )*};
}
whole_number!(u16 i32 u32);

impl Setting for f64 {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "must be a number, like 0.1".into())
    }

    fn show(&self) -> toml::Value {
        toml::Value::Float(*self)
    }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "must be true or false".into())
    }

    fn show(&self) -> toml::Value {
        toml::Value::Boolean(*self)
    }
}

/// An address to listen on; required wherever it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Bind(pub SocketAddr);

impl Default for Bind {
    fn default() -> Self {
        Self(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl Setting for Bind {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "must be an address and a port, like 0.0.0.0:8080".into())
    }

    fn show(&self) -> toml::Value {
        toml::Value::String(self.0.to_string())
    }
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Setting for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit = UNITS.iter().find(|(unit, _)| *unit == &text[digits..]);
        let amount = text[..digits].parse::<u64>().ok();
        amount
            .zip(unit)
            .and_then(|(amount, (_, millis))| amount.checked_mul(*millis))
            .map(Self::from_millis)
            .ok_or_else(|| "must be a whole number with a unit: 250ms, 15s, 5m, 12h or 7d".into())
    }

    fn show(&self) -> toml::Value {
        let millis = u64::try_from(self.as_millis()).unwrap_or(u64::MAX);
        let fitting = UNITS.iter().find(|(_, size)| millis >= *size && millis.is_multiple_of(*size));
        let (unit, size) = fitting.unwrap_or(&("ms", 1));
        toml::Value::String(format!("{}{unit}", millis / size))
    }
}

/// Whether a librdkafka property may hold a secret.
#[must_use]
pub fn is_secret_property(name: &str) -> bool {
    let telling = ["password", "secret", "key", "token", "jaas", "username", "oauthbearer", "kinit"];
    telling.iter().any(|part| name.contains(part))
}

/// A librdkafka property as `config` shows it.
pub(super) fn masked_property(name: &str, value: &str) -> toml::Value {
    let is_secret = is_secret_property(name) && !name.ends_with(".file");
    toml::Value::String(if is_secret { "***".into() } else { value.to_owned() })
}

//! What a token says, and whether it may be believed. Nothing of it is, its algorithm least of all,
//! before the signature is found to be that of a key that was configured.

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{Caller, keys::Keys};
use crate::customer::CustomerRef;

/// The longest token, in bytes. Those of usual issuers have one or two kilobytes.
const TOKEN_LIMIT: usize = 8 * 1024;
/// The longest `sub`: OpenID Connect's own limit. It is kept with what the caller does.
const SUBJECT_LIMIT: usize = 255;
/// The end of the year 9999. A token that outlives it has a mistake in its `exp`.
const END_OF_TIME: u64 = 253_402_300_799;

/// What every token has to say.
#[derive(Clone, Debug)]
pub struct Expected {
    pub issuer: String,
    pub audience: String,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
}

/// Why a token is not taken: for the log, never for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Bad(&'static str),
    UnknownKey,
    /// The issuer has not been reached yet.
    NoKeys,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bad(reason) => reason,
            Self::UnknownKey => "its key is not known",
            Self::NoKeys => "no key is known yet",
        })
    }
}

/// A token that has the shape of one.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    signed: &'a str,
    signature: &'a str,
    claims: &'a str,
    header: Header,
}

#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(default, deserialize_with = "present")]
    pub(super) kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    /// Extensions that have to be understood; there is none that is.
    #[serde(default, deserialize_with = "present")]
    crit: Option<serde::de::IgnoredAny>,
}

/// Times are whole seconds since 1970.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    exp: u64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    scope: Option<String>,
    #[serde(default, deserialize_with = "present")]
    customer_ref: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// A member may be left out, but not be null: null would leave a restriction out.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<'a> Token<'a> {
    /// # Errors
    /// Why it is none.
    pub(super) fn parse(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > TOKEN_LIMIT {
            return Err("it is too long");
        }
        let (signed, signature) = text.rsplit_once('.').ok_or("it has no parts")?;
        let (header, claims) = signed.split_once('.').ok_or("it has two parts only")?;
        let header: Header = part(header).ok_or("its header cannot be read")?;
        if header.crit.is_some() {
            return Err("it has an extension that is not known here");
        }
        let kind = header.typ.as_deref().map(|typ| typ.to_ascii_lowercase());
        if !matches!(kind.as_deref(), None | Some("jwt" | "application/jwt" | "at+jwt" | "application/at+jwt")) {
            return Err("it is for something else");
        }
        Ok(Self { text, signed, signature, claims, header })
    }

    /// The caller, and the second from which the token is not good any more.
    pub(super) fn verify(&self, keys: &Keys, expected: &Expected, now: i64) -> Result<(Caller, i64), Refusal> {
        if !keys.find(&self.header)?.has_signed(self.signed, self.signature) {
            return Err(Refusal::Bad("its signature is wrong"));
        }
        let claims: Claims = part(self.claims).ok_or(Refusal::Bad("its claims cannot be read"))?;
        claims.check(expected, now).map_err(Refusal::Bad)
    }
}

impl Claims {
    fn check(self, expected: &Expected, now: i64) -> Result<(Caller, i64), &'static str> {
        let leeway = i64::try_from(expected.leeway.as_secs()).map_err(|_| "the leeway has no end")?;
        let second = |at: u64| i64::try_from(at.min(END_OF_TIME)).expect("the year 9999 fits");
        if self.iss != expected.issuer {
            return Err("it is of another issuer");
        }
        if !match &self.aud {
            Audience::One(one) => *one == expected.audience,
            Audience::Many(all) => all.contains(&expected.audience),
        } {
            return Err("it is for another audience");
        }
        let until = second(self.exp) + leeway;
        if self.exp > END_OF_TIME || now >= until {
            return Err("its time is over");
        }
        if self.nbf.is_some_and(|from| now < second(from) - leeway) {
            return Err("its time has not come");
        }
        if !(1..=SUBJECT_LIMIT).contains(&self.sub.chars().count()) || self.sub.chars().any(char::is_control) {
            return Err("its sub names nobody");
        }
        let customer_ref = match self.customer_ref.as_deref().map(CustomerRef::parse) {
            Some(None) => return Err("its customerRef is none"),
            Some(found) => found,
            None => None,
        };
        let scopes =
            self.scope.unwrap_or_default().split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect();
        Ok((Caller { issuer: self.iss, subject: self.sub, customer_ref, scopes: Some(scopes) }, until))
    }
}

/// Reads a part of a token.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let Members(members) = serde_json::from_slice(&bytes).ok()?;
    serde_json::from_value(Value::Object(members)).ok()
}

/// A JSON object of which no member stands there twice: another reader of the token might have
/// believed the other one.
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Distinct;

        impl<'de> Visitor<'de> for Distinct {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member stands there twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Distinct)
    }
}

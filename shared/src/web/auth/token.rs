//! What a token says, and whether it may be believed. Nothing of it is, its algorithm least of all,
//! before the signature is found to be that of a key that was configured.

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{Caller, mapping::Mapping};
use crate::contract::text;

/// The longest token, in bytes. Those of usual issuers have one or two kilobytes.
const TOKEN_LIMIT: usize = 8 * 1024;
/// The longest `sub`: OpenID Connect's own limit. It is kept with what the caller does.
const SUBJECT_LIMIT: usize = 255;
/// The end of the year 9999. A token that outlives it has a mistake in its `exp`.
const END_OF_TIME: i64 = 253_402_300_799;

/// What every token has to say.
#[derive(Clone, Debug)]
pub struct TokenRules {
    pub issuer: String,
    /// One of these.
    pub audience: Vec<String>,
    /// Where a token has no `aud`, its `client_id` is one of these.
    pub client_ids: Vec<String>,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
    pub mapping: Mapping,
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
    pub(super) signed: &'a str,
    pub(super) signature: &'a str,
    claims: &'a str,
    pub(super) header: TokenHeader,
}

#[derive(Debug, Deserialize)]
pub(super) struct TokenHeader {
    pub(super) alg: String,
    #[serde(default, deserialize_with = "present")]
    pub(super) kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    /// Extensions that have to be understood; there is none that is.
    #[serde(default, deserialize_with = "present")]
    crit: Option<serde::de::IgnoredAny>,
}

/// What has the same meaning for every issuer.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
    #[serde(default, deserialize_with = "present")]
    client_id: Option<String>,
    sub: String,
    exp: Moment,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Moment>,
}

/// A time in seconds since 1970, which may have a fraction (RFC 7519, NumericDate): rounded up, which is from when
/// on whole seconds lie behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "serde_json::Number")]
struct Moment(i64);

impl TryFrom<serde_json::Number> for Moment {
    type Error = &'static str;

    fn try_from(number: serde_json::Number) -> Result<Self, Self::Error> {
        let no_time = "it is no time";
        if let Some(whole) = number.as_u64() {
            return i64::try_from(whole).map(Self).or(Ok(Self(i64::MAX)));
        }
        let seconds = number.as_f64().filter(|seconds| *seconds >= 0.0).ok_or(no_time)?;
        // Beyond it nothing is exact, and nothing is a time.
        let end = END_OF_TIME as f64;
        #[expect(clippy::cast_possible_truncation, reason = "it is not greater than the end of time")]
        let whole = if seconds > end { i64::MAX } else { seconds.ceil() as i64 };
        Ok(Self(whole))
    }
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
        let header: TokenHeader = part(header).ok_or("its header cannot be read")?;
        if header.crit.is_some() {
            return Err("it has an extension that is not known here");
        }
        let kind = header.typ.as_deref().map(|typ| typ.to_ascii_lowercase());
        if !matches!(kind.as_deref(), None | Some("jwt" | "application/jwt" | "at+jwt" | "application/at+jwt")) {
            return Err("it is for something else");
        }
        Ok(Self { text, signed, signature, claims, header })
    }

    /// Believes it, which is for [`Token::verify`] to ask for: whom it names, and until when.
    pub(super) fn believed(&self, expected: &TokenRules, now: i64) -> Result<(Caller, i64), Refusal> {
        let unreadable = || Refusal::Bad("its claims cannot be read");
        let all = members(self.claims).ok_or_else(unreadable)?;
        let claims = Claims::deserialize(&all).map_err(|_| unreadable())?;
        claims.check(&all, expected, now).map_err(Refusal::Bad)
    }
}

impl Claims {
    fn check(self, all: &Value, expected: &TokenRules, now: i64) -> Result<(Caller, i64), &'static str> {
        let leeway = i64::try_from(expected.leeway.as_secs()).map_err(|_| "the leeway has no end")?;
        if self.iss != expected.issuer {
            return Err("it is of another issuer");
        }
        let is_ours = match (&self.aud, &self.client_id) {
            (Some(Audience::One(one)), _) => expected.audience.contains(one),
            (Some(Audience::Many(many)), _) => many.iter().any(|one| expected.audience.contains(one)),
            (None, Some(client)) => expected.client_ids.contains(client),
            (None, None) => false,
        };
        if !is_ours {
            return Err("it is for another audience");
        }
        let (Moment(exp), nbf) = (self.exp, self.nbf);
        let until = exp.min(END_OF_TIME) + leeway;
        if exp > END_OF_TIME || now >= until {
            return Err("its time is over");
        }
        if nbf.is_some_and(|Moment(from)| now < from.min(END_OF_TIME) - leeway) {
            return Err("its time has not come");
        }
        if !(1..=SUBJECT_LIMIT).contains(&self.sub.chars().count()) || !text::is_visible(&self.sub) {
            return Err("its sub names nobody");
        }
        let customer_ref = expected.mapping.customer_of(all)?;
        let scopes = expected.mapping.scopes_of(all)?;
        let lacks = expected.mapping.unrestricted_scope.clone().filter(|scope| !scopes.contains(&**scope));
        let (issuer, subject, scopes) = (self.iss, self.sub, Some(scopes));
        Ok((Caller { issuer, subject, customer_ref, until: Some(until), scopes, lacks }, until))
    }
}

/// Reads a part of a token.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(members(text)?).ok()
}

fn members(text: &str) -> Option<Value> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let Members(members) = serde_json::from_slice(&bytes).ok()?;
    Some(Value::Object(members))
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

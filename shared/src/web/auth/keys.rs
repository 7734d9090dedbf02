//! The public keys that tokens are verified with. Which algorithm a token may have is a matter of
//! the key alone: one for each.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Caller,
    token::{Refusal, Token, TokenHeader, TokenRules},
    verified::Verified,
};
use crate::web::json::Object;

/// What RFC 9864 calls EdDSA with the curve that is taken here.
const ED25519: &str = "Ed25519";
/// No issuer has as many; what is looked through for each token has to end.
const MOST_KEYS: usize = 100;
/// In bytes: 2048 and 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// What is said of a set without a key of a kind that is taken.
pub(super) const NONE: &str = "must have a key for RS256 (2048 bits or more), ES256 or EdDSA (Ed25519)";

/// What is known to be good by these keys ends with them: it is kept here.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    pub(super) verified: Verified,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    /// The keys of a set (RFC 7517) that are for signatures and of a kind that is taken. A set may
    /// have others: they are left out.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn from_jwks(text: &[u8]) -> Result<Self, String> {
        let found = Self::of_set(text)?;
        if found.keys.is_empty() { Err(NONE.into()) } else { Ok(found) }
    }

    /// As [`Keys::from_jwks`], where there were keys before: what a set does not have any more is taken back, even where
    /// nothing is left that can be used.
    ///
    /// # Errors
    /// What it must be instead.
    pub(super) fn of_set(text: &[u8]) -> Result<Self, String> {
        let not = || "must be a JWKS: a JSON object with a list \"keys\"".to_owned();
        let Object(set) = serde_json::from_slice::<Object<Set>>(text).map_err(|_| not())?;
        if set.keys.len() > MOST_KEYS {
            return Err(format!("must not have more than {MOST_KEYS} keys"));
        }
        let mut keys: Vec<_> = set.keys.into_iter().filter_map(Key::of_value).collect();
        if keys.len() > 1 {
            // Nothing would tell for which tokens it is.
            keys.retain(|key| key.id.is_some());
        }
        Ok(Self { keys, verified: Verified::default() })
    }

    /// One public key; it takes tokens with any `kid`.
    ///
    /// # Errors
    /// What it must be instead.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        if text.windows(11).any(|part| part == b"PRIVATE KEY") {
            return Err("must be a public key: this is a private one, which belongs to the issuer alone".into());
        }
        let rsa = DecodingKey::from_rsa_pem(text).map(|key| (Algorithm::RS256, key));
        let ec = || DecodingKey::from_ec_pem(text).map(|key| (Algorithm::ES256, key));
        let ed = || DecodingKey::from_ed_pem(text).map(|key| (Algorithm::EdDSA, key));
        let (algorithm, key) = rsa.or_else(|_| ec()).or_else(|_| ed()).map_err(|_| "must be a public key as PEM")?;
        if !is_sound(algorithm, &key) {
            return Err("must be a key of RSA (2048 bits or more), P-256 or Ed25519".into());
        }
        Ok(Self { keys: vec![Key { id: None, algorithm, key }], verified: Verified::default() })
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key that a token says it was signed with.
    fn find(&self, header: &TokenHeader) -> Result<&Key, Refusal> {
        let meant = |key: &&Key| match (&key.id, &header.kid) {
            (Some(id), Some(asked)) => id == asked,
            (Some(_), None) => self.keys.len() == 1,
            (None, _) => true,
        };
        let mut meant = self.keys.iter().filter(meant).peekable();
        if meant.peek().is_none() {
            return Err(if header.kid.is_some() { Refusal::UnknownKey } else { Refusal::Bad("it names no key") });
        }
        let alg = if header.alg == ED25519 { "EdDSA" } else { header.alg.as_str() };
        meant.find(|key| key.name() == alg).ok_or(Refusal::Bad("its alg is not that of the key"))
    }
}

impl Key {
    fn of_value(mut key: Value) -> Option<Self> {
        // RFC 9864 names the curve; the library knows the older name only.
        if key["alg"] == ED25519 {
            key["alg"] = "EdDSA".into();
        }
        Self::of(&serde_json::from_value(key).ok()?)
    }

    fn of(jwk: &Jwk) -> Option<Self> {
        let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
            && jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let (algorithm, declared) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        let fits = for_signatures && jwk.common.key_algorithm.is_none_or(|given| given == declared);
        let key = DecodingKey::from_jwk(jwk).ok().filter(|key| fits && is_sound(algorithm, key))?;
        Some(Self { id: jwk.common.key_id.clone(), algorithm, key })
    }

    fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            _ => "EdDSA",
        }
    }

    /// Whether `signature`, in Base64, is that of `signed`.
    fn has_signed(&self, signed: &str, signature: &str) -> bool {
        crypto::verify(signature, signed.as_bytes(), &self.key, self.algorithm).is_ok_and(|good| good)
    }
}

impl Token<'_> {
    /// The caller, and the second from which the token is not good any more.
    pub(super) fn verify(&self, keys: &Keys, expected: &TokenRules, now: i64) -> Result<(Caller, i64), Refusal> {
        if !keys.find(&self.header)?.has_signed(self.signed, self.signature) {
            return Err(Refusal::Bad("its signature is wrong"));
        }
        self.believed(expected, now)
    }
}

/// Whether the key has the size that its algorithm wants; nothing could be verified with another.
fn is_sound(algorithm: Algorithm, key: &DecodingKey) -> bool {
    match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, .. }) => MODULUS.contains(&n.len()),
        // The modulus, with some bytes of DER and the exponent.
        (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => der.len() > *MODULUS.start(),
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => point.len() == 65 && point[0] == 4,
        (_, DecodingKeyKind::SecretOrDer(point)) => point.len() == 32,
        (_, DecodingKeyKind::RsaModulusExponent { .. }) => false,
    }
}

//! The header `Idempotency-Key`: a caller that repeats a request under its key gets one order and one
//! answer. What is kept of a key is written by the placement statement, in the order's transaction.

use sha2::{Digest, Sha256};
use shared::web::auth::Caller;

use crate::order::NewOrder;

pub const MAX_LENGTH: usize = 255;

/// A caller's key. Those of different callers are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key that a caller has written, bare or quoted; none where it is malformed.
    #[must_use]
    pub fn parse(written: &[u8], caller: &Caller) -> Option<Self> {
        let key = parse(written)?;
        let mut digest = Sha256::new();
        for part in [caller.issuer.as_bytes(), caller.subject.as_bytes(), &key] {
            // With its length, so that no two callers' parts run together to the same text.
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Some(Self(digest.finalize().into()))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Of this the advisory lock is made that is held by whoever places under this key. Two keys may share one: then
    /// one waits for the other a moment longer than it had to.
    #[must_use]
    pub fn lock(&self) -> i64 {
        let (first, _) = self.0.split_first_chunk().expect("there are 32 bytes");
        i64::from_be_bytes(*first)
    }
}

/// Bare, or quoted as RFC 9651 writes strings; both are the same key.
fn parse(value: &[u8]) -> Option<Vec<u8>> {
    let key = match value.strip_prefix(b"\"") {
        None => value.to_vec(),
        Some(rest) => unescape(rest.strip_suffix(b"\"")?)?,
    };
    let fits = (1..=MAX_LENGTH).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    fits.then_some(key)
}

fn unescape(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = quoted.iter().copied();
    let mut key = Vec::with_capacity(quoted.len());
    while let Some(byte) = bytes.next() {
        key.push(match byte {
            b'\\' => bytes.next().filter(|escaped| matches!(escaped, b'"' | b'\\'))?,
            b'"' => return None,
            other => other,
        });
    }
    Some(key)
}

/// Tells two requests under one key apart: of the order as it was understood, so that blanks and the
/// order of fields in the body make no difference. It is compared by other versions of the service: a
/// field that a request may do without must not change it where it is absent.
#[must_use]
pub fn fingerprint(order: &NewOrder) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(order.customer_ref().as_str());
    // No reference has such a character.
    digest.update([0]);
    for item in order.items() {
        digest.update(item.product_id);
        digest.update(item.quantity.to_be_bytes());
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        assert_eq!(parse(b"a-1").as_deref(), Some(b"a-1".as_slice()));
        assert_eq!(parse(b"\"a-1\""), parse(b"a-1"));
        assert_eq!(parse(br#""a\"\\b""#), parse(br#"a"\b"#));
        assert!(parse(&[b'~'; 255]).is_some());
        assert!(parse(format!("\"{}\"", "x".repeat(255)).as_bytes()).is_some());
    }

    #[test]
    fn keys_of_different_callers_are_different() {
        let key_of = |issuer: &str, subject: &str| {
            let mut caller = Caller::anonymous();
            (caller.issuer, caller.subject) = (issuer.into(), subject.into());
            Key::parse(b"k", &caller).unwrap()
        };
        let callers = [("a", "b"), ("a", "c"), ("c", "b"), ("ab", ""), ("", "ab"), ("a", "bk")];
        let keys: HashSet<_> = callers.map(|(issuer, subject)| key_of(issuer, subject)).into();
        assert_eq!(keys.len(), callers.len());
        assert_eq!(key_of("a", "b"), key_of("a", "b"));
    }

    #[test]
    fn a_malformed_key_is_none() {
        let long = "x".repeat(256);
        for bad in
            ["", "\"", "\"\"", "\"a", "\"a\\\"", "\"a\"b\"", "\"a\\b\"", "a b", "a\tb", "\u{fc}", "\u{7f}", &long]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}

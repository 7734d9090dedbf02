//! Tokens that were found good, so that a caller's next request costs a hash instead of a signature.
//!
//! Two generations bound it: what is used moves into the young one, and when that is full the old
//! one goes, with all that was not used since.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};

use super::{
    Caller,
    token::{Refusal, Token},
};

/// Tokens of one generation: about 1 MB.
const GENERATION: usize = 4096;

/// By SHA-256: the tokens themselves are secrets, and long.
type Generation = HashMap<[u8; 32], (Caller, i64)>;

#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<(Generation, Generation)>);

impl Verified {
    /// The caller of a token that is known to be good at `now`, or else by `verify`, which also tells
    /// until when.
    pub(super) fn or_verify(
        &self,
        token: &Token<'_>,
        now: i64,
        verify: impl FnOnce() -> Result<(Caller, i64), Refusal>,
    ) -> Result<Caller, Refusal> {
        let digest = Sha256::digest(token.text).into();
        if let Some(caller) = self.recall(&digest, now) {
            return Ok(caller);
        }
        let (caller, until) = verify()?;
        self.remember(digest, (caller.clone(), until));
        Ok(caller)
    }

    fn recall(&self, digest: &[u8; 32], now: i64) -> Option<Caller> {
        let known = {
            let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let young = generations.0.get(digest).map(|known| (known.clone(), true));
            young.or_else(|| generations.1.get(digest).map(|known| (known.clone(), false)))
        };
        let ((caller, until), is_young) = known.filter(|((_, until), _)| now < *until)?;
        if !is_young {
            self.remember(*digest, (caller.clone(), until));
        }
        Some(caller)
    }

    fn remember(&self, digest: [u8; 32], known: (Caller, i64)) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.0.len() >= GENERATION {
            generations.1 = std::mem::take(&mut generations.0);
        }
        generations.0.insert(digest, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_what_is_not_goes_and_nothing_outlives_its_time() {
        let verified = Verified::default();
        let digest = |number: usize| Sha256::digest(number.to_be_bytes()).into();
        for number in 0..3 * GENERATION {
            verified.remember(digest(number), (Caller::anonymous(), 100));
            assert!(verified.recall(&digest(0), 99).is_some(), "after {number}");
        }
        assert!(verified.recall(&digest(1), 99).is_none());
        assert!(verified.recall(&digest(0), 100).is_none());
        let (young, old) = &*verified.0.lock().unwrap();
        assert!(young.len() <= GENERATION && old.len() <= GENERATION);
    }
}

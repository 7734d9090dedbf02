//! What the quarantine keeps of a message: everything, or the hash of its value only.

use sha2::{Digest, Sha256};

use crate::headers;

/// What is at hand of a message.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    Whole {
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        ce_type: Option<&'a [u8]>,
        /// As [`headers::hold`](crate::headers::hold) has them.
        headers: &'a [u8],
    },
    /// Of one that is too large to be held, the SHA-256 of its value.
    TooLarge([u8; 32]),
}

impl<'a> Content<'a> {
    pub(super) fn key(self) -> Option<&'a [u8]> {
        match self {
            Self::Whole { key, .. } => key,
            Self::TooLarge(_) => None,
        }
    }

    pub(super) fn value(self) -> Option<&'a [u8]> {
        match self {
            Self::Whole { value, .. } => value,
            Self::TooLarge(_) => None,
        }
    }

    pub(super) fn ce_type(self) -> Option<&'a [u8]> {
        match self {
            Self::Whole { ce_type, .. } => ce_type,
            Self::TooLarge(_) => None,
        }
    }

    /// As the quarantine keeps them; none of one that has none.
    pub(super) fn headers(self) -> Option<String> {
        match self {
            Self::Whole { headers, .. } if !headers.is_empty() => Some(headers::to_json(headers)),
            Self::Whole { .. } | Self::TooLarge(_) => None,
        }
    }

    /// The bytes that its row takes.
    pub(super) fn bytes(self) -> u64 {
        let parts = [self.key(), self.value(), self.ce_type()];
        let headers = self.headers().map_or(0, |headers| headers.len() as u64);
        headers + parts.iter().flatten().map(|part| part.len() as u64).sum::<u64>()
    }

    /// The same with its value's hash only.
    pub(super) fn without_bytes(self) -> Self {
        match self {
            Self::Whole { value, .. } => Self::TooLarge(Sha256::digest(value.unwrap_or_default()).into()),
            Self::TooLarge(hash) => Self::TooLarge(hash),
        }
    }

    pub(super) fn hash(&self) -> Option<&[u8]> {
        match self {
            Self::Whole { .. } => None,
            Self::TooLarge(hash) => Some(hash),
        }
    }
}

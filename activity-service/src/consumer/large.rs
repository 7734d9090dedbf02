//! A message larger than a whole batch may be: its bytes are not held, only what it is recognised by.

use sha2::{Digest as _, Sha256};

use crate::{
    activity::Activity,
    quarantine::{Identities, Identity},
    record::{self, Digest, Raw},
    rejection::Rejected,
};

/// What a message is recognised by whose bytes are not held.
#[derive(Debug)]
pub(super) struct Large {
    pub value_sha256: [u8; 32],
    pub identities: Identities,
    pub digest: Digest,
}

impl Large {
    pub fn new(raw: &Raw<'_>, parsed: &Result<Activity, Rejected>) -> Self {
        Self {
            value_sha256: Sha256::digest(raw.value.unwrap_or_default()).into(),
            identities: identities(parsed, raw.key, raw.value, raw.ce_type),
            digest: record::digest(raw.timestamp, raw.key, raw.value, raw.ce_type),
        }
    }
}

/// Under what a message may be in quarantine.
pub(super) fn identities(
    parsed: &Result<Activity, Rejected>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    ce_type: Option<&[u8]>,
) -> Identities {
    let message_ref = match parsed {
        Ok(activity) => Some(activity.message_ref),
        Err(rejected) => rejected.message_ref,
    };
    Identities {
        read: message_ref.map(|message_ref| Identity::of_read(message_ref, value)),
        unread: Identity::of_unread(key, ce_type, value),
    }
}

//! What a record is recognised by where it is read once more.

use rdkafka::message::{BorrowedMessage, Message};
use sha2::{Digest as _, Sha256};
use shared::{contract::message::CE_TYPE, runtime::kafka};

/// SHA-256 of a record. Messages that are sent again are the same byte for byte, and have another timestamp.
pub type Digest = [u8; 32];

/// A message as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub ce_type: Option<&'a [u8]>,
    /// As Kafka has it, in milliseconds since 1970.
    pub timestamp: Option<i64>,
}

#[must_use]
pub fn digest(timestamp: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>, ce_type: Option<&[u8]>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(timestamp.unwrap_or(-1).to_be_bytes());
    for part in [key, value, ce_type] {
        // The length, so that no byte can be taken for one of the next part.
        hash.update(part.map_or(-1, |bytes| bytes.len() as i64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

#[must_use]
pub fn of_message(message: &BorrowedMessage<'_>) -> Digest {
    digest(message.timestamp().to_millis(), message.key(), message.payload(), ce_type(message))
}

/// The type of the CloudEvents header, where there is one.
#[must_use]
pub fn ce_type<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    kafka::headers(message.headers()?).find(|header| header.key == CE_TYPE)?.value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_differ_by_each_of_their_parts() {
        let (a, b) = (Some(b"a".as_slice()), Some(b"b".as_slice()));
        let one = digest(Some(1), a, b, None);
        assert_eq!(one, digest(Some(1), a, b, None));
        for other in [
            digest(Some(2), a, b, None),
            digest(None, a, b, None),
            digest(Some(1), None, b, None),
            digest(Some(1), Some(b""), b, None),
            digest(Some(1), Some(b"ab"), Some(b""), None),
            digest(Some(1), a, b, a),
        ] {
            assert_ne!(one, other);
        }
    }
}

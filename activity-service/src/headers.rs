//! The headers of a message. On its way they lie in one piece beside its other bytes; the quarantine keeps them as JSON,
//! so that they can be read in the table as well.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rdkafka::message::BorrowedHeaders;
use serde::{Deserialize, Serialize};
use shared::runtime::kafka;
use utoipa::ToSchema;

/// The most that is held of one message, names and values. Kafka itself bounds the whole message only.
const MOST_BYTES: usize = 16 * 1024;
/// In place of the length of a value: there is none.
const NONE: u32 = u32::MAX;

/// A header of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MessageHeader)]
pub struct Header {
    /// Several may have one name.
    pub name: String,
    /// Null where it has none.
    #[schema(required, content_encoding = "base64")]
    pub value_base64: Option<String>,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn value(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.value_base64.as_ref()?).ok()
    }
}

/// Appends headers: of each the length of its name, the name, the length of its value, the value. Those that do not fit
/// are left out.
pub fn hold(headers: &BorrowedHeaders, held: &mut Vec<u8>) {
    let begin = held.len();
    for header in kafka::headers(headers) {
        let bytes = 8 + header.key.len() + header.value.map_or(0, <[u8]>::len);
        if held.len() - begin + bytes > MOST_BYTES {
            break;
        }
        append(held, header.key, header.value);
    }
}

fn append(held: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("it is bounded").to_le_bytes();
    held.extend(length(name.as_bytes()));
    held.extend(name.as_bytes());
    held.extend(value.map_or(NONE.to_le_bytes(), length));
    held.extend(value.unwrap_or_default());
}

/// What was held, as the quarantine keeps it: a JSON list of [`Header`].
#[must_use]
pub fn to_json(held: &[u8]) -> String {
    let (mut rest, mut headers) = (held, Vec::new());
    while let Some(header) = take(&mut rest) {
        headers.push(header);
    }
    serde_json::to_string(&headers).expect("texts are JSON")
}

fn take(rest: &mut &[u8]) -> Option<Header> {
    let length = |rest: &mut &[u8]| Some(u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?));
    let name = length(rest)? as usize;
    let name = String::from_utf8_lossy(rest.split_off(..name)?).into_owned();
    let value_base64 = match length(rest)? {
        NONE => None,
        value => Some(BASE64_STANDARD.encode(rest.split_off(..value as usize)?)),
    };
    Some(Header { name, value_base64 })
}

/// Headers as they are kept.
///
/// # Errors
/// Somebody else has written something there.
pub fn of_json(kept: &str) -> serde_json::Result<Vec<Header>> {
    serde_json::from_str(kept)
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header as Sent, OwnedHeaders};

    use super::*;

    fn kept(sent: &OwnedHeaders) -> Vec<Header> {
        let mut held = Vec::new();
        hold(sent.as_borrowed(), &mut held);
        of_json(&to_json(&held)).unwrap()
    }

    #[test]
    fn headers_are_kept_in_their_order_with_whatever_bytes_they_have() {
        let values: [(&str, Option<&[u8]>); 5] =
            [("a", Some(b"\xff\0")), ("a", None), ("", Some(b"")), ("<script>", Some(b"x")), ("ce_id", Some(b"1"))];
        let sent =
            values.iter().fold(OwnedHeaders::new(), |sent, (key, value)| sent.insert(Sent { key, value: *value }));
        let expected = values.map(|(name, value)| Header {
            name: name.into(),
            value_base64: value.map(|value| BASE64_STANDARD.encode(value)),
        });
        assert_eq!(kept(&sent), expected);
        assert_eq!(kept(&OwnedHeaders::new()), []);
    }

    #[test]
    fn what_is_too_large_is_left_out() {
        let large = vec![b'x'; MOST_BYTES];
        let sent = OwnedHeaders::new()
            .insert(Sent { key: "small", value: Some("1") })
            .insert(Sent { key: "large", value: Some(&large) });
        assert_eq!(kept(&sent).iter().map(|header| &*header.name).collect::<Vec<_>>(), ["small"]);
    }
}

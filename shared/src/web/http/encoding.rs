//! Answers on their way out: not again where the caller has them, and smaller where it can read gzip.

use std::io::Write;

use actix_web::{
    body::{BoxBody, MessageBody},
    dev::{ResponseHead, ServiceRequest, ServiceResponse},
    http::{
        StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
            IF_NONE_MATCH, VARY,
        },
    },
    web::Bytes,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

/// Less is not worth it, and more takes longer than others should wait for this thread: what is larger are files
/// of the documentation, which callers keep.
const COMPRESSED: std::ops::RangeInclusive<usize> = 1024..=256 * 1024;

/// What the caller said about the answers it takes.
#[derive(Debug)]
pub(super) struct Acceptable {
    takes_gzip: bool,
    has: Vec<String>,
}

impl Acceptable {
    pub(super) fn of(request: &ServiceRequest) -> Self {
        let has = listed(request.headers(), &IF_NONE_MATCH).map(|tag| tag.trim_start_matches("W/").to_owned());
        Self { takes_gzip: takes_gzip(request.headers()), has: has.collect() }
    }

    /// The answer to a GET.
    pub(super) fn pack(&self, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        response.map_body(|head, body| match body.try_into_bytes() {
            Ok(bytes) => self.packed(head, bytes).boxed(),
            Err(stream) => stream,
        })
    }

    fn packed(&self, head: &mut ResponseHead, bytes: Bytes) -> Bytes {
        let may_be_kept = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("no-cache"));
        if head.status == StatusCode::OK && head.headers.get(CACHE_CONTROL).is_some_and(may_be_kept) {
            let tag = format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(&bytes)[..16]));
            let is_known = self.has.iter().any(|has| *has == tag || has == "*");
            // Weak: the same answer is other bytes where it is compressed.
            let value = HeaderValue::from_str(&format!("W/{tag}")).expect("Base64 is visible");
            head.headers.insert(ETAG, value);
            if is_known {
                head.status = StatusCode::NOT_MODIFIED;
                head.headers.remove(CONTENT_TYPE);
                return Bytes::new();
            }
        }
        if !COMPRESSED.contains(&bytes.len()) || !is_text(&head.headers) || head.headers.contains_key(CONTENT_ENCODING)
        {
            return bytes;
        }
        head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        match self.takes_gzip.then(|| gzip(&bytes)) {
            Some(Ok(smaller)) => {
                head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                smaller.into()
            }
            _ => bytes,
        }
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("text/") || ["json", "javascript", "xml"].iter().any(|part| kind.contains(part))
}

/// The parts of a header that is a list.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(name).filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// `gzip`, or `*` where `gzip` is not named, and neither with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    for coding in listed(headers, &ACCEPT_ENCODING) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().trim_start_matches("q=").parse::<f32>();
        let wanted = weight.is_ok_and(|weight| weight > 0.0) || !coding.contains(';');
        if name.trim().eq_ignore_ascii_case("gzip") {
            return wanted;
        }
        any |= name.trim() == "*" && wanted;
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_so_gets_gzip() {
        let takes = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_str(text).unwrap());
            takes_gzip(&headers)
        };
        for yes in ["gzip", "GZIP", "br, gzip;q=0.5", "deflate,*", "*;q=0.1", "gzip; q=1.0"] {
            assert!(takes(yes), "{yes}");
        }
        for no in ["", "br", "gzip;q=0", "*, gzip;q=0", "*;q=0", "gzip;q=x", "x-gzip-2"] {
            assert!(!takes(no), "{no}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}

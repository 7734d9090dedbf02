//! Answers on their way out: not again where the caller has them, and smaller where it can read gzip.

use actix_web::{
    body::{BoxBody, MessageBody},
    dev::{ResponseHead, ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
            IF_NONE_MATCH, VARY,
        },
    },
    web::{self, Bytes},
};

use super::fixed::{Fixed, gzip, tag_of};

/// In bytes. Less is not worth it.
const LEAST_COMPRESSED: usize = 1024;
/// More takes longer than others should wait for this thread, and another one does it: the figures of 400 days are
/// 330 kB.
const MOST_COMPRESSED_HERE: usize = 256 * 1024;

/// What the caller said about the answers it takes.
#[derive(Debug)]
pub(super) struct Acceptable {
    takes_gzip: bool,
    /// Only what is asked for by GET has a tag.
    is_get: bool,
    has: Vec<String>,
}

impl Acceptable {
    pub(super) fn of(request: &ServiceRequest) -> Self {
        let is_get = request.method() == Method::GET;
        let has = listed(request.headers(), &IF_NONE_MATCH).map(|tag| tag.trim_start_matches("W/").to_owned());
        Self { takes_gzip: takes_gzip(request.headers()), is_get, has: has.collect() }
    }

    pub(super) async fn pack(&self, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        let (request, response) = response.into_parts();
        let fixed = response.extensions().get::<Fixed>().cloned();
        let (mut response, body) = response.into_parts();
        let body = match body.try_into_bytes() {
            Ok(bytes) => self.packed(response.head_mut(), bytes, fixed).await.boxed(),
            Err(stream) => stream,
        };
        ServiceResponse::new(request, response.set_body(body))
    }

    async fn packed(&self, head: &mut ResponseHead, bytes: Bytes, fixed: Option<Fixed>) -> Bytes {
        let may_be_kept = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("no-cache"));
        if self.is_get && head.status == StatusCode::OK && head.headers.get(CACHE_CONTROL).is_some_and(may_be_kept) {
            let tag = fixed.as_ref().map_or_else(|| tag_of(&bytes), |fixed| fixed.tag().to_owned());
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
        if bytes.len() < LEAST_COMPRESSED || !is_text(&head.headers) || head.headers.contains_key(CONTENT_ENCODING) {
            return bytes;
        }
        head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
        if !self.takes_gzip {
            return bytes;
        }
        let Some(smaller) = smaller(&bytes, fixed).await else { return bytes };
        head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        smaller
    }
}

/// None where the other thread cannot do it.
async fn smaller(bytes: &Bytes, fixed: Option<Fixed>) -> Option<Bytes> {
    if let Some(known) = fixed.as_ref().and_then(Fixed::known_gzip) {
        return Some(known);
    }
    let plain = bytes.clone();
    let work = move || fixed.map_or_else(|| gzip(&plain), |fixed| fixed.gzipped());
    if bytes.len() > MOST_COMPRESSED_HERE { web::block(work).await.ok() } else { Some(work()) }
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

    #[tokio::test]
    async fn however_large_it_is_it_is_compressed() {
        for length in [LEAST_COMPRESSED, MOST_COMPRESSED_HERE + 1] {
            let mut head = ResponseHead::new(StatusCode::OK);
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let asked = Acceptable { takes_gzip: true, is_get: true, has: Vec::new() };
            let packed = asked.packed(&mut head, vec![b'7'; length].into(), None).await;
            assert!(packed.len() * 4 < length && head.headers.contains_key(CONTENT_ENCODING), "{length}");
        }
    }
}

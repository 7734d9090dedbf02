//! Answers that are the same for everybody as long as the process runs: documents, and what pages are made of. Whoever
//! has no token may ask for them too, so nothing is made for each request: no copy, no tag, and no gzip.

use std::{
    io::Write,
    sync::{Arc, OnceLock},
};

use actix_web::{HttpResponse, http::header::CACHE_CONTROL, web::Bytes};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

/// Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Fixed(Arc<Contents>);

#[derive(Debug)]
struct Contents {
    kind: String,
    bytes: Bytes,
    /// These two are made when somebody asks for them first: a start does not wait for them.
    tag: OnceLock<String>,
    gzipped: OnceLock<Bytes>,
}

impl Fixed {
    /// `kind` is its media type.
    pub(crate) fn new(kind: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let (tag, gzipped) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Contents { kind: kind.into(), bytes: bytes.into(), tag, gzipped }))
    }

    /// Kept by browsers, but asked for each time: after an update no page is put together of old and new.
    pub(crate) fn answer(&self) -> HttpResponse {
        let mut answer = HttpResponse::Ok();
        answer.insert_header((CACHE_CONTROL, "no-cache")).content_type(self.0.kind.as_str());
        // By this the answer is known again on its way out.
        answer.extensions_mut().insert(self.clone());
        answer.body(self.0.bytes.clone())
    }

    pub(super) fn tag(&self) -> &str {
        self.0.tag.get_or_init(|| tag_of(&self.0.bytes))
    }

    pub(super) fn gzipped(&self) -> Bytes {
        self.0.gzipped.get_or_init(|| gzip(&self.0.bytes)).clone()
    }

    /// Where it has been made already.
    pub(super) fn known_gzip(&self) -> Option<Bytes> {
        self.0.gzipped.get().cloned()
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes every write").into()
}

/// As it stands in `If-None-Match`, without the mark of a weak one.
pub(super) fn tag_of(bytes: &[u8]) -> String {
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(bytes)[..16]))
}

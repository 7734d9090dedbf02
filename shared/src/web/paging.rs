//! Cursors of lists: a place between two entries, bound to the filter of the list it was made for.

use std::fmt::Write;

use actix_web::{HttpRequest, HttpResponse, http::header::LINK};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

/// Makes and reads the text that a caller hands back.
#[derive(Debug)]
pub enum Cursor {}

impl Cursor {
    /// `place` is what tells the last entry of a page from the next.
    pub fn encode(place: &impl Serialize, filter: &impl Serialize) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&(place, filter)).expect("times, numbers and text are JSON"))
    }

    /// None for what is no cursor, or one of another filter.
    pub fn decode<P: DeserializeOwned>(text: &str, filter: &impl Serialize) -> Option<P> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (place, of): (P, serde_json::Value) = serde_json::from_slice(&bytes).ok()?;
        (of == serde_json::to_value(filter).ok()?).then_some(place)
    }
}

/// A page of a list, with a link to the next where there is one: the same request with the cursor
/// of where this page ends. The link is relative, so that it holds under whatever path a proxy leads here.
pub fn respond(request: &HttpRequest, entries: &[impl Serialize], next: Option<String>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = next {
        let kept = request.query_string().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let mut link = kept.fold("<?".to_owned(), |link, pair| link + pair + "&");
        write!(link, "cursor={cursor}>; rel=\"next\"").expect("a String takes every write");
        response.insert_header((LINK, link)).insert_header(("x-next-cursor", cursor));
    }
    response.json(entries)
}

/// Takes what was read beyond the page's limit off, and makes the cursor of the next page if there
/// was any.
pub fn cut<T, P: Serialize>(
    found: &mut Vec<T>,
    limit: i64,
    place: impl Fn(&T) -> P,
    filter: &impl Serialize,
) -> Option<String> {
    let limit = usize::try_from(limit).ok().filter(|limit| *limit < found.len())?;
    found.truncate(limit);
    found.last().map(|last| Cursor::encode(&place(last), filter))
}

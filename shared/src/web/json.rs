//! Reading a JSON body: bounded, strict, and with errors that name the place but never the value.

use std::time::Duration;

use actix_web::{
    HttpMessage, HttpRequest,
    http::header::{CONTENT_ENCODING, HeaderValue},
    web::{BytesMut, Payload},
};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::web::problem::{Problem, Violation};

/// The largest body that any route takes, in bytes.
pub const BODY_LIMIT: usize = 64 * 1024;
/// How long a caller may take to send one: the limit at 6.5 kB/s.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Reads the body of `request` and parses it as a `T`.
///
/// # Errors
/// 415 another content type, 413 too large, 408 too slow, 400 not JSON or cut off, 422 JSON that does
/// not fit.
pub async fn body<T: DeserializeOwned>(request: &HttpRequest, payload: Payload) -> Result<T, Problem> {
    check_type(request)?;
    parse(&whole(payload).await?)
}

/// As [`body`], of a request that may go without: None where nothing was sent.
///
/// # Errors
/// As [`body`].
pub async fn optional_body<T: DeserializeOwned>(request: &HttpRequest, payload: Payload) -> Result<Option<T>, Problem> {
    let bytes = whole(payload).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    check_type(request)?;
    parse(&bytes).map(Some)
}

fn check_type(request: &HttpRequest) -> Result<(), Problem> {
    if !request.content_type().eq_ignore_ascii_case("application/json") {
        return Err(Problem::unsupported_media_type());
    }
    let is_plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !request.headers().get_all(CONTENT_ENCODING).all(is_plain) {
        return Err(Problem::unsupported_encoding());
    }
    Ok(())
}

async fn whole(payload: Payload) -> Result<BytesMut, Problem> {
    tokio::time::timeout(BODY_WITHIN, bounded(payload)).await.unwrap_or_else(|_| Err(Problem::too_slow()))
}

async fn bounded(mut payload: Payload) -> Result<BytesMut, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("The body ended before its announced length."))?;
        if bytes.len() + chunk.len() > BODY_LIMIT {
            return Err(Problem::payload_too_large(BODY_LIMIT));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// # Errors
/// As [`body`], 400 and 422.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let not_json = || Problem::bad_request("The body is not valid JSON in UTF-8.");
    let text = std::str::from_utf8(bytes).map_err(|_| not_json())?;
    if let Ok(fitting) = serde_json::from_str(text) {
        return Ok(fitting);
    }
    // Others are read again, to tell what is wrong and where. The whole text first: a wrong field before a syntax error
    // is still not JSON.
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| not_json())?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        match error.inner().classify() {
            Category::Data => Problem::unprocessable(vec![Violation::new(pointer, detail(&error.inner().to_string()))]),
            // The grammar has no bound for numbers, the types have.
            Category::Syntax if error.inner().to_string().starts_with("number out of range") => {
                Problem::unprocessable(vec![Violation::new(pointer, "This number is out of range.")])
            }
            Category::Syntax | Category::Eof | Category::Io => not_json(),
        }
    })
}

fn pointer(path: &Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// Says what is wrong in a caller's words. serde's message quotes the value, but ends with what
/// was expected, which is ours.
fn detail(message: &str) -> String {
    let named = |prefix: &str| message.strip_prefix(prefix).and_then(|rest| rest.split('`').nth(1));
    if let Some(field) = named("missing field ") {
        return format!("The field {field} is missing.");
    }
    if message.starts_with("unknown field ") {
        return "There is a field that is not known here.".into();
    }
    if let Some(field) = named("duplicate field ") {
        return format!("The field {field} stands here twice.");
    }
    let expected = message.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
    let expected = expected.rsplit_once(" at line ").map_or(expected, |(expected, _)| expected);
    let expected = match expected {
        "i64" => "a whole number",
        "a sequence" => "a list",
        other => other,
    };
    format!("This must be {expected}.")
}

/// A `T` that is written as an object. serde's derive would also take a list of its fields.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMaps<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMaps<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(OnlyMaps(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the parsing is looked at")]
    struct Line {
        name: String,
        amount: i64,
    }

    fn refused(text: &str) -> String {
        format!("{:?}", parse::<Object<Line>>(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn a_list_is_not_taken_for_an_object() {
        assert!(refused(r#"["canary", 1]"#).contains("must be an object"));
    }

    #[test]
    fn the_place_is_told_and_the_value_is_not() {
        let told = refused(r#"{"name": "x", "amount": "canary, expected"}"#);
        assert!(told.contains("/amount") && told.contains("a whole number") && !told.contains("canary"), "{told}");
    }

    #[test]
    fn a_number_that_no_type_holds_is_out_of_range_and_half_a_character_is_no_json() {
        for number in ["1e400".to_owned(), "9".repeat(400)] {
            let told = refused(&format!(r#"{{"name": "x", "amount": {number}}}"#));
            assert!(
                told.contains("status: 422") && told.contains("/amount") && told.contains("out of range"),
                "{told}"
            );
        }
        assert!(refused(r#"{"name": "\ud800", "amount": 1}"#).contains("status: 400"));
    }

    #[test]
    fn nothing_may_follow_what_fits() {
        let fitting = r#" {"name": "x", "amount": 1} "#;
        assert!(parse::<Object<Line>>(fitting.as_bytes()).is_ok());
        for more in ["x", "}", "1", "\u{a0}"] {
            assert!(refused(&format!("{fitting}{more}")).contains("status: 400"), "{more}");
        }
    }

    #[test]
    fn a_syntax_error_behind_a_wrong_field_is_400() {
        assert!(refused(r#"{"name": 5, "amount": }"#).contains("status: 400"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse::<Object<Line>>(&bytes));
        }
    }
}

//! Answers to what never became a request: there is no room for the connection, or its head cannot be
//! read. The framework answers the latter with a bare status line, or not at all; here it gets
//! what every error has.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use actix_web::{
    body::MessageBody,
    http::{StatusCode, Uri, header::HttpDate},
    rt::net::TcpStream,
    web::Bytes,
};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{RequestId, stamp};
use crate::web::problem::Problem;

/// The framework's own answer is shorter.
const LONGEST_BARE: usize = 256;
const END: &[u8] = b"\r\n\r\n";
/// The path that is told where none has been read.
pub(super) const UNKNOWN: &str = "/";
/// How long what still arrives is read after a refusal: closing before would take the answer back.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The whole answer, as it goes over the connection. `path` is the one asked for, as far as that is known.
pub(super) fn answer(problem: &Problem, path: &str) -> Bytes {
    let id = RequestId::new();
    tracing::debug!("request.id" = %id, "http.response.status_code" = problem.status().as_u16(), "refused unread");
    let mut response = problem.to_response(path, id.as_str());
    stamp(response.headers_mut(), "", &id);
    let date = HttpDate::from(SystemTime::now());
    let mut text = format!("HTTP/1.1 {}\r\nconnection: close\r\ndate: {date}\r\n", response.status());
    for (name, value) in response.headers() {
        let value = value.to_str().expect("problems have headers of visible characters");
        write!(text, "{name}: {value}\r\n").expect("a String takes every write");
    }
    let body = response.into_body().try_into_bytes().unwrap_or_default();
    write!(text, "content-length: {}\r\n\r\n", body.len()).expect("a String takes every write");
    [text.as_bytes(), &body].concat().into()
}

/// Where the framework's own answer begins among what it writes. It is always the last on a connection,
/// and the only error without a body.
pub(super) fn bare(written: &[u8]) -> Option<(usize, StatusCode)> {
    let tail = written.len().saturating_sub(LONGEST_BARE);
    let begin = written.ends_with(END).then(|| rfind(&written[tail..], b"HTTP/1."))??;
    let head = std::str::from_utf8(&written[tail + begin..]).ok()?;
    let status = StatusCode::from_bytes(head.get(9..12)?.as_bytes()).ok()?;
    let is_bare = status.as_u16() >= 400 && head.contains("\r\ncontent-length: 0\r\n");
    is_bare.then_some((tail + begin, status))
}

fn rfind(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|window| window == what)
}

/// The path of a request line, where all of the line is in `begun`, the beginning of a head.
pub(super) fn path_of(begun: &[u8]) -> String {
    let line = begun.split_inclusive(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
    let words =
        line.and_then(|line| std::str::from_utf8(line.strip_suffix(b"\n")?).ok()).map(str::split_ascii_whitespace);
    let target = words.map(Iterator::collect::<Vec<_>>).and_then(|words| match words[..] {
        [_, target, version] if version.starts_with("HTTP/") => Uri::try_from(target).ok(),
        _ => None,
    });
    target.map(|target| target.path().to_owned()).filter(|path| !path.is_empty()).unwrap_or_else(|| UNKNOWN.to_owned())
}

/// Tells a caller for whose connection there is no room to come back later.
pub(super) async fn turn_away(mut stream: TcpStream) {
    // A client that is answered before it has asked, or while it still sends, may see an error of the
    // connection instead of the answer.
    let telling = async {
        stream.readable().await?;
        stream.write_all(&answer(&Problem::unavailable(), UNKNOWN)).await?;
        stream.shutdown().await?;
        let mut nobody_reads = tokio::io::sink();
        tokio::io::copy(&mut stream, &mut nobody_reads).await
    };
    drop(timeout(LINGER, telling).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_a_whole_request_line_or_none() {
        for (begun, path) in [
            ("GET /orders HTTP/1.1\r\nHost: x", "/orders"),
            ("\r\nGET /orders?limit=5 HTTP/1.1\r\n", "/orders"),
            ("POST http://shop.example/orders HTTP/1.1\r\n", "/orders"),
            ("GET /or%20ders HTTP/9.9\n", "/or%20ders"),
            ("GET /orders HTTP/1.1", "/"),
            ("GET /or ders HTTP/1.1\r\n", "/"),
            ("GET /orders\r\nX: HTTP/1.1\r\n", "/"),
            ("GET http://[::1 HTTP/1.1\r\n", "/"),
            ("CONNECT shop.example:80 HTTP/1.1\r\n", "/"),
            ("\u{16}\u{3}\u{1}\r\n", "/"),
            ("", "/"),
        ] {
            assert_eq!(path_of(begun.as_bytes()), path, "{begun:?}");
        }
        assert_eq!(path_of(b"GET /\xff HTTP/1.1\r\n"), "/");
    }

    #[test]
    fn only_the_frameworks_own_answer_is_found_and_only_at_the_end() {
        let bare_one = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\ndate: x\r\n\r\n";
        assert_eq!(bare(bare_one), Some((0, StatusCode::BAD_REQUEST)));
        let ours = answer(&Problem::unavailable(), UNKNOWN);
        assert_eq!(bare(&ours), None);
        let both = [&ours[..], bare_one].concat();
        assert_eq!(bare(&both), Some((ours.len(), StatusCode::BAD_REQUEST)));
        for other in ["HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n", "\r\n\r\n", "", "HTTP/1.1 \r\n\r\n"] {
            assert_eq!(bare(other.as_bytes()), None);
        }
    }
}

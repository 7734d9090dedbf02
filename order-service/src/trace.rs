//! The W3C trace context of the request that places an order: it travels in the order's message.

use actix_web::http::header::HeaderMap;

/// Longer lists of vendors are dropped, as the specification allows, not cut.
const TRACESTATE_LIMIT: usize = 512;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    pub parent: Option<String>,
    pub state: Option<String>,
}

impl TraceContext {
    /// What does not parse is left out: the trace ends here, the order does not.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let parent = text(headers, "traceparent").filter(|text| is_traceparent(text));
        let state =
            text(headers, "tracestate").filter(|text| parent.is_some() && (1..=TRACESTATE_LIMIT).contains(&text.len()));
        Self { parent, state }
    }
}

/// The one value of a header, in visible ASCII.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name);
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok().map(str::to_owned)
}

/// Version 00: `00-<32 hex>-<16 hex>-<2 hex>`, lowercase, ids not all zero.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &str, length| hex(part, length) && part.bytes().any(|b| b != b'0');
    matches!(parts.as_slice(), ["00", trace, span, flags] if id(trace, 32) && id(span, 16) && hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_parent_is_taken() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}

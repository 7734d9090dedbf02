//! Lines that repeat themselves: of one place in the code no more than a few a minute are written,
//! the others are counted. Whoever logs says a failure once, when it begins; this is for what begins
//! again and again, and for libraries. A line about a request is always written.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::metrics::own::LINES_SUPPRESSED;

const WINDOW: Duration = Duration::from_secs(60);
/// Lines of one place in the code and one window. An outage of Kafka is told at three places: together
/// no more than 10 lines a minute.
const WARNINGS: u32 = 3;
/// Errors are about one message or partition each, of which there are many.
const ERRORS: u32 = 60;
/// What librdkafka and the exporter of traces have to say.
const CHATTER: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Repeated(Mutex<HashMap<Place, Window>>);

/// A place in the code. What comes through the facade of the crate log has a target only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    target: &'static str,
    file: Option<&'static str>,
    line: Option<u32>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Repeated {
    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let most = match *metadata.level() {
            _ if metadata.target().starts_with("opentelemetry") => CHATTER,
            Level::WARN => WARNINGS,
            Level::ERROR => ERRORS,
            _ if metadata.target() == "shared::kafka" => CHATTER,
            _ => return true,
        };
        if context.event_span(event).is_some() {
            return true;
        }
        let place = Place { target: metadata.target(), file: metadata.file(), line: metadata.line() };
        let is_written = self.admit(place, most, Instant::now());
        if !is_written {
            LINES_SUPPRESSED.add(1);
        }
        is_written
    }
}

impl Repeated {
    fn admit(&self, place: Place, most: u32, now: Instant) -> bool {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = places.entry(place).or_insert(Window { began: now, lines: 0 });
        if now.duration_since(window.began) >= WINDOW {
            *window = Window { began: now, lines: 0 };
        }
        window.lines = window.lines.saturating_add(1);
        window.lines <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_its_lines_in_each_window() {
        let repeated = Repeated::default();
        let place = Place { target: "test", file: Some("here.rs"), line: Some(1) };
        let begin = Instant::now();
        let admitted = |after| (0..10).filter(|_| repeated.admit(place, WARNINGS, begin + after)).count();
        assert_eq!(admitted(Duration::ZERO), 3);
        assert_eq!(admitted(WINDOW - Duration::from_secs(1)), 0);
        assert!(repeated.admit(Place { line: Some(2), ..place }, WARNINGS, begin));
        assert_eq!(admitted(WINDOW), 3);
    }
}

//! Lines that repeat themselves: of one place in the code and one task no more than a few a minute are written,
//! the others are counted. Whoever logs says a failure once, when it begins; this is for what begins
//! again and again, and for libraries. A line about a request is always written, as is one that no level removes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::ALWAYS;
use crate::runtime::metrics::own::LINES_SUPPRESSED;

const WINDOW: Duration = Duration::from_secs(60);
/// Lines of one place in the code and one window. An outage of Kafka is told at three places: together
/// no more than 10 lines a minute.
const WARNINGS: u32 = 3;
/// Errors are about one message or partition each, of which there are many.
const ERRORS: u32 = 60;
/// What librdkafka and the exporter of traces have to say.
const CHATTER: u32 = 3;

/// The target of what librdkafka says.
pub(crate) const LIBRDKAFKA: &str = "librdkafka";

#[derive(Debug, Default)]
pub(super) struct Repeated(Mutex<HashMap<Origin, Window>>);

/// Who says a line: a place in the code, and the task that it names, as all tasks say their failures in one place.
/// What comes through the facade of the crate log has a target only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    target: &'static str,
    file: Option<&'static str>,
    line: Option<u32>,
    task: Option<String>,
}

/// The task that an event names. They are few, and none is named after what comes from outside.
#[derive(Debug, Default)]
struct TaskName(Option<String>);

impl Visit for TaskName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "task" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
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
            _ if metadata.target() == ALWAYS => return true,
            _ if metadata.target().starts_with("opentelemetry") => CHATTER,
            Level::WARN => WARNINGS,
            Level::ERROR => ERRORS,
            _ if metadata.target() == LIBRDKAFKA => CHATTER,
            _ => return true,
        };
        if context.event_span(event).is_some() {
            return true;
        }
        let mut task = TaskName::default();
        event.record(&mut task);
        let (target, file, line) = (metadata.target(), metadata.file(), metadata.line());
        let is_written = self.admit(Origin { target, file, line, task: task.0 }, most, Instant::now());
        if !is_written {
            LINES_SUPPRESSED.add(1);
        }
        is_written
    }
}

impl Repeated {
    fn admit(&self, origin: Origin, most: u32, now: Instant) -> bool {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(origin).or_insert(Window { began: now, lines: 0 });
        if now.duration_since(window.began) >= WINDOW {
            *window = Window { began: now, lines: 0 };
        }
        window.lines = window.lines.saturating_add(1);
        window.lines <= most
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::runtime::health::Health;

    #[test]
    fn a_place_has_its_lines_in_each_window() {
        let repeated = Repeated::default();
        let origin = Origin { target: "test", file: Some("here.rs"), line: Some(1), task: None };
        let begin = Instant::now();
        let admitted = |after| (0..10).filter(|_| repeated.admit(origin.clone(), WARNINGS, begin + after)).count();
        assert_eq!(admitted(Duration::ZERO), 3);
        assert_eq!(admitted(WINDOW - Duration::from_secs(1)), 0);
        assert!(repeated.admit(Origin { line: Some(2), ..origin.clone() }, WARNINGS, begin));
        assert_eq!(admitted(WINDOW), 3);
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Written {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut task = TaskName::default();
            event.record(&mut task);
            self.0.lock().unwrap().extend(task.0);
        }
    }

    #[test]
    fn a_task_that_fails_again_and_again_takes_no_line_from_another() {
        let (health, written) = (Health::default(), Written::default());
        let lines = tracing_subscriber::registry().with(Repeated::default()).with(written.clone());
        tracing::subscriber::with_default(lines, || {
            for name in ["first", "second"] {
                let status = health.task(name);
                for _ in 0..10 {
                    status.failing("away", "waiting for something outside");
                    status.failing("away", "waiting for something outside");
                    status.ok();
                }
            }
        });
        assert_eq!(*written.0.lock().unwrap(), [["first"; 3], ["second"; 3]].concat());
    }
}

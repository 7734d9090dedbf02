//! Metrics. Each service lists its own in one table; from it they are described and registered, so
//! that every series is there from the start, at zero, but for what nobody knows yet. docs/metrics.md says what each
//! one means.
//!
//! What happens is counted where it happens. What can be looked up (a queue's length, a number in
//! the database) is looked up when somebody asks: see [`crate::operators::management::exposition`].

pub mod now;
pub mod own;

use metrics::Label;

tokio::task_local! {
    /// While the numbers in the database are read: what is set then is a gauge of [`Gauge::of_database`], and only then.
    pub(crate) static READING: ();
}

/// A label and every value that it can have.
pub type Values = (&'static str, &'static [&'static str]);

/// One metric of a table.
pub trait Metric: Sync {
    fn name(&self) -> &'static str;
    /// Describes it and makes its series.
    fn register(&self);
    /// The upper bounds of a histogram's buckets.
    fn buckets(&self) -> Option<&'static [f64]> {
        None
    }
    /// Itself, where its value lives in the database.
    fn as_of_database(&'static self) -> Option<&'static Gauge> {
        None
    }
}

/// Grows with what happens.
#[derive(Debug)]
pub struct Counter {
    pub name: &'static str,
    pub help: &'static str,
    pub label: Option<Values>,
}

/// Tells what is now.
#[derive(Debug)]
pub struct Gauge {
    pub name: &'static str,
    pub help: &'static str,
    pub label: Option<Values>,
    is_of_database: bool,
}

/// Tells how values are distributed.
#[derive(Debug)]
pub struct Histogram {
    pub name: &'static str,
    pub help: &'static str,
    pub label: Option<Values>,
    pub buckets: &'static [f64],
}

/// From a round trip to the patience of a caller, for what people or requests wait for; in seconds.
/// Those of OpenTelemetry's HTTP conventions, with the contract's bounds of 1 s and 3 s among them.
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 3.0, 5.0, 7.5, 10.0];
/// For what also waits out outages; in seconds.
pub const LONG_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0];
/// For the sizes of batches.
pub const SIZES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

impl Counter {
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, label: None }
    }

    #[must_use]
    pub const fn by(self, name: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((name, values)), ..self }
    }

    pub fn add(&self, count: u64) {
        metrics::counter!(self.name).increment(count);
    }

    /// For what is counted elsewhere.
    pub fn set_to(&self, count: u64) {
        metrics::counter!(self.name).absolute(count);
    }

    /// As [`Counter::add`], under one value of its label.
    pub fn add_of(&self, value: &'static str, count: u64) {
        metrics::counter!(self.name, labels(self.label, value)).increment(count);
    }
}

impl Gauge {
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, label: None, is_of_database: false }
    }

    /// Its value lives in the database: it is told only while that can be read.
    #[must_use]
    pub const fn of_database(self) -> Self {
        Self { is_of_database: true, ..self }
    }

    #[must_use]
    pub const fn by(self, name: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((name, values)), ..self }
    }

    #[expect(clippy::cast_precision_loss, reason = "nothing here is counted beyond 2^53")]
    pub fn set_count(&self, count: u64) {
        self.set(count as f64);
    }

    pub fn set(&self, value: f64) {
        self.is_set_by_whom_it_should();
        metrics::gauge!(self.name).set(value);
    }

    /// Nobody knows its value now: the scrape does not tell it until it is set again.
    pub fn forget(&self) {
        series(self.label).into_iter().for_each(|labels| metrics::gauge!(self.name, labels).set(f64::NAN));
    }

    /// As [`Gauge::set`], under one value of its label.
    pub fn set_of(&self, label: &'static str, value: f64) {
        self.is_set_by_whom_it_should();
        metrics::gauge!(self.name, labels(self.label, label)).set(value);
    }

    /// A gauge of the database that is not marked so would be told for as long as the database is away: each test that
    /// scrapes a service finds it out.
    fn is_set_by_whom_it_should(&self) {
        let Self { name, is_of_database, .. } = self;
        debug_assert_eq!(*is_of_database, READING.try_with(|()| ()).is_ok(), "{name}: is it of the database?");
    }

    #[expect(clippy::cast_precision_loss, reason = "nothing here is counted beyond 2^53")]
    pub fn set_count_of(&self, label: &'static str, count: u64) {
        self.set_of(label, count as f64);
    }
}

impl Histogram {
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self { name, help, label: None, buckets }
    }

    #[must_use]
    pub const fn by(self, name: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((name, values)), ..self }
    }

    pub fn record(&self, value: f64) {
        metrics::histogram!(self.name).record(value);
    }

    #[expect(clippy::cast_precision_loss, reason = "nothing here is counted beyond 2^53")]
    pub fn record_count(&self, count: usize) {
        self.record(count as f64);
    }

    /// For many values under one value of its label.
    pub fn of(&self, value: &'static str) -> metrics::Histogram {
        metrics::histogram!(self.name, labels(self.label, value))
    }
}

fn labels(label: Option<Values>, value: &'static str) -> Vec<Label> {
    label.map(|(name, _)| Label::from_static_parts(name, value)).into_iter().collect()
}

/// The label sets of every series that a metric can have.
fn series(label: Option<Values>) -> Vec<Vec<Label>> {
    let one = |(_, values): Values| values.iter().map(|value| labels(label, value)).collect();
    label.map_or_else(|| vec![Vec::new()], one)
}

impl Metric for Counter {
    fn name(&self) -> &'static str {
        self.name
    }

    fn register(&self) {
        metrics::describe_counter!(self.name, self.help);
        series(self.label).into_iter().for_each(|labels| metrics::counter!(self.name, labels).increment(0));
    }
}

impl Metric for Gauge {
    fn name(&self) -> &'static str {
        self.name
    }

    fn register(&self) {
        metrics::describe_gauge!(self.name, self.help);
        series(self.label).into_iter().for_each(|labels| metrics::gauge!(self.name, labels).set(0.0));
        if self.is_of_database {
            self.forget();
        }
    }

    fn as_of_database(&'static self) -> Option<&'static Gauge> {
        self.is_of_database.then_some(self)
    }
}

impl Metric for Histogram {
    fn name(&self) -> &'static str {
        self.name
    }

    fn register(&self) {
        metrics::describe_histogram!(self.name, self.help);
        series(self.label).into_iter().for_each(|labels| drop(metrics::histogram!(self.name, labels)));
    }

    fn buckets(&self) -> Option<&'static [f64]> {
        Some(self.buckets)
    }
}

//! The present values of gauges, out of what a scrape would be answered.

use std::str::FromStr;

use super::Gauge;

/// An answer to a scrape; empty where metrics are switched off.
#[derive(Debug)]
pub struct Now(pub(crate) String);

impl Now {
    /// Of the only series of a gauge.
    #[must_use]
    pub fn value(&self, gauge: &Gauge) -> Option<f64> {
        self.series(gauge).next().map(|(_, value)| value)
    }

    /// Of all series of a gauge that counts; none where it has none.
    #[must_use]
    pub fn count(&self, gauge: &Gauge) -> Option<u64> {
        self.series(gauge).map(|(_, value)| value).reduce(|sum: u64, value| sum.saturating_add(value))
    }

    /// Of the series with this value of the gauge's label.
    #[must_use]
    pub fn count_of(&self, gauge: &Gauge, value: &str) -> Option<u64> {
        let (name, _) = gauge.label?;
        let labels = format!("{{{name}=\"{value}\"}}");
        self.series(gauge).find(|(found, _)| *found == labels).map(|(_, value)| value)
    }

    /// Labels and value of each.
    fn series<'a, T: FromStr>(&'a self, gauge: &'a Gauge) -> impl Iterator<Item = (&'a str, T)> {
        self.0.lines().filter_map(|line| {
            let (labels, value) = line.strip_prefix(gauge.name)?.rsplit_once(' ')?;
            // Another name may begin with this one.
            (labels.is_empty() || labels.starts_with('{')).then_some(())?;
            Some((labels, value.parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: Gauge = Gauge::new("waiting", "");
    const BY_REASON: Gauge = Gauge::new("waiting_messages", "").by("reason", &["not json", "no value"]);

    #[test]
    fn each_gauge_has_its_own_series_and_no_other() {
        let text = "# TYPE waiting gauge\nwaiting 3.5\nwaiting_messages{reason=\"not json\"} 2\nwaiting_messages{reason=\"no value\"} 1\n";
        let now = Now(text.into());
        assert_eq!(now.value(&TOTAL), Some(3.5));
        assert_eq!(now.count(&BY_REASON), Some(3));
        assert_eq!((now.count_of(&BY_REASON, "not json"), now.count_of(&BY_REASON, "else")), (Some(2), None));
        assert_eq!((Now(String::new()).value(&TOTAL), Now(String::new()).count(&BY_REASON)), (None, None));
    }
}

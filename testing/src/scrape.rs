//! What a service tells on `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Clone, Debug)]
pub struct Scrape {
    text: String,
    /// The kinds of all metrics, by name.
    pub kinds: BTreeMap<String, String>,
    /// The values of all series, by name and labels as they stand there.
    pub series: BTreeMap<String, f64>,
}

impl Scrape {
    /// # Panics
    /// The text is not what Prometheus reads.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (mut kinds, mut series) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert!(series.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} stands there twice");
            }
        }
        Self { text: text.to_owned(), kinds, series }
    }

    /// The sum over all series of a metric; no number where nobody knows it now.
    ///
    /// # Panics
    /// There is no such metric.
    #[must_use]
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &str| series.split('{').next() == Some(name);
        let values: Vec<_> = self.series.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).collect();
        if values.is_empty() {
            assert!(self.kinds.contains_key(name), "{name} is not told");
            return f64::NAN;
        }
        values.into_iter().sum()
    }

    /// The value of the series with this label.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn sum_of(&self, name: &str, label: &str, value: &str) -> f64 {
        let labelled = format!("{label}=\"{value}\"");
        let is_it = |series: &str| series.split('{').next() == Some(name) && series.contains(&labelled);
        let values: Vec<_> = self.series.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).collect();
        assert!(!values.is_empty(), "{name} with {labelled} is not told");
        values.into_iter().sum()
    }

    /// Whether a metric is told now.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.series.keys().any(|series| series.split('{').next() == Some(name))
    }

    /// Compares the names with those that `docs/metrics.md` has for a service, and lets promtool look at them.
    ///
    /// # Panics
    /// They differ.
    pub fn is_as_documented(&self, service: &str) {
        crate::prometheus::check_metrics(&self.text);
        let documented: BTreeMap<_, _> =
            documented(service).into_iter().map(|[name, kind, _, _]| (name, kind)).collect();
        let differ = |one: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
            one.iter()
                .filter(|(name, kind)| other.get(*name) != Some(kind))
                .map(|(name, _)| name.clone())
                .collect::<BTreeSet<_>>()
        };
        let (undocumented, untold) = (differ(&self.kinds, &documented), differ(&documented, &self.kinds));
        assert!(undocumented.is_empty() && untold.is_empty(), "not documented: {undocumented:?}; not told: {untold:?}");
    }
}

/// The metrics of a service that `docs/metrics.md` says live in the database.
///
/// # Panics
/// It cannot be read.
#[must_use]
pub fn documented_of_database(service: &str) -> BTreeSet<String> {
    let all = documented(service).into_iter();
    all.filter(|[_, _, _, meaning]| meaning.starts_with("*all*")).map(|[name, ..]| name).collect()
}

/// The cells of its rows for a service: name, kind, labels, meaning.
fn documented(service: &str) -> Vec<[String; 4]> {
    let document = std::fs::read_to_string(crate::root().join("docs/metrics.md")).unwrap();
    let mut rows = Vec::new();
    let mut heading = "";
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            heading = title;
        } else if let Some(row) = line.strip_prefix("| `")
            && ["Both services", service].contains(&heading)
        {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_end_matches('`').to_owned());
            rows.push(std::array::from_fn(|_| cells.next().unwrap()));
        }
    }
    rows
}

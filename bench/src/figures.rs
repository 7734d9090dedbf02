//! What was measured: printed as a table, kept as JSON.

use std::{env, fs};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::scale::Scale;

#[derive(Clone, Copy, Debug)]
pub enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
        }
    }
}

/// One quantity, measured once in each pair of runs.
#[derive(Debug)]
pub struct Figure {
    name: String,
    unit: &'static str,
    /// In the order of the pairs; never empty.
    values: Vec<f64>,
    aim: Option<Aim>,
}

impl Figure {
    /// # Panics
    /// There are no values.
    pub fn new(name: impl Into<String>, unit: &'static str, values: impl IntoIterator<Item = f64>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        assert!(!values.is_empty(), "at least one pair was measured");
        Self { name: name.into(), unit, values, aim: None }
    }

    /// What one side did in each pair, divided by what the other did in the same pair.
    pub fn ratio<T>(name: impl Into<String>, pairs: &[T], of: impl Fn(&T) -> f64, to: impl Fn(&T) -> f64) -> Self {
        Self::new(name, "", pairs.iter().map(|pair| of(pair) / to(pair)))
    }

    /// As [`Figure::ratio`], of two that had a turn in each round.
    pub fn quotient<T>(name: impl Into<String>, one: &[T], other: &[T], of: impl Fn(&T) -> f64) -> Self {
        Self::new(name, "", one.iter().zip(other).map(|(one, other)| of(one) / of(other)))
    }

    pub fn aim(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    fn min(&self) -> f64 {
        self.sorted()[0]
    }

    fn max(&self) -> f64 {
        self.sorted()[self.values.len() - 1]
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "median": self.median(),
            "min": self.min(),
            "max": self.max(),
            "values": self.values,
            "aim": self.aim.map(Aim::text),
            "met": self.aim.map(|aim| aim.is_met_by(self.median())),
        })
    }

    fn line(&self) -> String {
        let [median, min, max] = [self.median(), self.min(), self.max()].map(shown);
        let aim = self.aim.map_or_else(String::new, |aim| {
            let verdict = if aim.is_met_by(self.median()) { "met" } else { "MISSED" };
            format!("{:<9} {verdict}", aim.text())
        });
        format!("  {:<50} {:<9} {median:>9} {min:>9} {max:>9}   {aim}", self.name, self.unit).trim_end().to_owned()
    }
}

/// Four digits where there are as many, so that columns can be compared at a glance.
fn shown(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// A measurement that was checked.
#[derive(Debug)]
pub struct Report {
    pub name: &'static str,
    /// What exactly is measured, from when to when.
    pub about: &'static str,
    pub figures: Vec<Figure>,
    /// The load average of the last minute, at the start of each pair and at the end of the last.
    pub load: Vec<f64>,
}

impl Report {
    /// Writes it to `target/bench`.
    pub fn save(&self, scale: &Scale) -> Result<()> {
        let own = env::current_exe().context("where the program lies")?;
        let target = own.ancestors().nth(2).context("the program does not lie in target/release")?;
        let folder = target.join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let report = json!({
            "name": self.name,
            "about": self.about,
            "scale": scale.name,
            "pairs": scale.pairs,
            "rounds": scale.rounds,
            "connections": scale.connections,
            "endedAt": OffsetDateTime::now_utc().format(&Rfc3339).context("the clock")?,
            "cores": std::thread::available_parallelism().map_or(1, usize::from),
            "loadAverage": self.load,
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
        });
        let file = folder.join(format!("{}.json", self.name));
        fs::write(&file, format!("{report:#}\n")).with_context(|| format!("cannot write {}", file.display()))
    }
}

pub fn print(reports: &[Report], scale: &Scale) {
    println!("\n  {:<50} {:<9} {:>9} {:>9} {:>9}   aim", "", "unit", "median", "min", "max");
    for report in reports {
        println!("\n{}: {}", report.name, report.about);
        report.figures.iter().for_each(|figure| println!("{}", figure.line()));
        let load: Vec<_> = report.load.iter().map(|load| format!("{load:.2}")).collect();
        println!("  load average before each pair and at the end: {}", load.join(" "));
    }
    let (pairs, connections) = (scale.pairs, scale.connections);
    println!(
        "\n{pairs} pairs of runs, interleaved, orders over {connections} connections; everything was checked by id"
    );
    println!("JSON in target/bench");
    if scale.name == "quick" {
        println!("quick: the figures mean nothing");
    }
}

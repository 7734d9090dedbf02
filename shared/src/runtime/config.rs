//! Settings: the service's defaults, then its TOML file, then its environment.
//!
//! A [`Reader`] hands out one value after the other, parsed, and notes every mistake on the way,
//! so that an operator sees them all at once. What was handed out is also what `config` prints.

mod clear;
mod setting;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::RangeBounds,
    path::Path,
};

pub use clear::is_this_machine;
use config::{Config, Environment, File, FileFormat, Value, ValueKind};
pub use setting::{Bind, Secret, Setting, WebUrl, is_secret_property};
pub use source::Source;

/// Reads the settings of one service. Keys are flat and dotted: `kafka.brokers`.
#[derive(Debug)]
pub struct Reader {
    defaults: BTreeMap<String, String>,
    given: BTreeMap<String, String>,
    known: BTreeSet<String>,
    effective: toml::Table,
    mistakes: Vec<String>,
    in_clear: Vec<String>,
    /// Groups or settings whose mistakes matter; all, where none are named.
    needed: &'static [&'static str],
}

/// Settings that were read.
#[derive(Debug)]
pub struct Shown {
    /// As TOML, secrets masked.
    pub text: String,
    /// What they would send in clear to other machines, a line each: only to be looked at then.
    pub in_clear: Vec<String>,
}

impl Reader {
    /// `defaults` is the service's own TOML; `prefix` is that of its environment, `ORDER_SERVICE`.
    ///
    /// # Errors
    /// The file cannot be read or is not TOML: one line for the operator.
    pub fn new(defaults: &str, prefix: &str, file: Option<&Path>) -> Result<Self, Vec<String>> {
        let from_file = file.map_or(Ok(String::new()), read_toml).map_err(|line| vec![line])?;
        let given = Config::builder()
            .add_source(File::from_str(&from_file, FileFormat::Toml))
            .add_source(Environment::with_prefix(prefix).prefix_separator("__").separator("__").ignore_empty(true))
            .build()
            .map_err(|error| vec![error.to_string()])?;
        let mut reader = Self {
            defaults: flatten(File::from_str(defaults, FileFormat::Toml)),
            given: flatten(given),
            known: BTreeSet::new(),
            effective: toml::Table::new(),
            mistakes: Vec::new(),
            in_clear: Vec::new(),
            needed: &[],
        };
        let is_given = reader.given.contains_key("database.url_file");
        if let Some(url) = std::env::var("DATABASE_URL").ok().filter(|url| !is_given && !url.is_empty()) {
            reader.given.entry("database.url".into()).or_insert(url);
        }
        Ok(reader)
    }

    /// With the defaults of something that the service uses: its own win over them.
    #[must_use]
    pub fn with_defaults(mut self, of_a_part: &str) -> Self {
        for (key, value) in flatten(File::from_str(of_a_part, FileFormat::Toml)) {
            self.defaults.entry(key).or_insert(value);
        }
        self
    }

    /// Only what is wrong with these settings, or with those of these groups, matters: a command need not know of the
    /// others. Settings that do not exist are a mistake all the same.
    #[must_use]
    pub fn needing(self, needed: &'static [&'static str]) -> Self {
        Self { needed, ..self }
    }

    /// The setting's value. Where it is wrong the mistake is noted and the default stands in for
    /// the rest of the reading; [`Reader::finish`] then refuses the whole.
    pub fn get<T: Setting>(&mut self, key: &str) -> T {
        self.checked(key, |_| Ok(()))
    }

    /// As [`Reader::get`], for a number or duration that makes sense only within `range`.
    pub fn within<T: Setting + PartialOrd>(&mut self, key: &str, range: impl RangeBounds<T>, rule: impl Display) -> T {
        self.checked(key, |value| if range.contains(value) { Ok(()) } else { Err(format!("must be {rule}")) })
    }

    /// A setting that may be left out.
    pub fn optional<T: Setting>(&mut self, key: &str, rule: impl Fn(&T) -> Result<(), String>) -> Option<T> {
        self.known.insert(key.to_owned());
        self.given.contains_key(key).then(|| self.checked(key, rule))
    }

    /// As [`Reader::get`], with a rule of the caller's own; it answers with what the value must be.
    pub fn checked<T: Setting>(&mut self, key: &str, rule: impl Fn(&T) -> Result<(), String>) -> T {
        self.known.insert(key.to_owned());
        let default = self
            .defaults
            .get(key)
            .map(|text| T::parse(text).unwrap_or_else(|rule| panic!("the embedded default of {key} {rule}")));
        let value = match self.given.get(key) {
            Some(text) => T::parse(text),
            None => default.clone().ok_or_else(|| "is required".to_owned()),
        };
        // A default may break the rule on purpose: then the setting has to be made.
        let value = value.and_then(|value| rule(&value).map(|()| value)).unwrap_or_else(|mistake| {
            self.mistake(key, mistake);
            default.unwrap_or_default()
        });
        self.show(key, value.show());
        value
    }

    /// Everything below `prefix`, by its own name; for settings that are handed on as they are.
    /// In the environment, where names cannot hold dots, `_` stands for one.
    pub fn properties(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let below = format!("{prefix}.");
        let mut found = BTreeMap::new();
        for (key, value) in &self.given {
            if let Some(name) = key.strip_prefix(&below) {
                self.known.insert(key.clone());
                // The map is sorted and '.' comes before '_': the environment wins over the file.
                found.insert(name.replace('_', "."), value.clone());
            }
        }
        let shown = found.iter().map(|(name, value)| (name.clone(), setting::masked_property(name, value)));
        let shown = toml::Value::Table(shown.collect());
        self.show(prefix, shown);
        found
    }

    pub fn mistake(&mut self, key: &str, what: impl Display) {
        if self.matters(key) {
            self.mistakes.push(format!("{key}: {what}"));
        }
    }

    /// Whether the settings that begin so matter, and nothing was found wrong with them so far.
    pub(crate) fn is_right(&self, prefix: &str) -> bool {
        self.matters(prefix) && !self.mistakes.iter().any(|mistake| mistake.starts_with(prefix))
    }

    fn matters(&self, key: &str) -> bool {
        let is_of =
            |needed: &&str| key.strip_prefix(*needed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.needed.is_empty() || self.needed.iter().any(is_of)
    }

    /// What is in force, for people.
    ///
    /// # Errors
    /// Every mistake found, a line each; a key that nobody asked for is one.
    pub fn finish(mut self) -> Result<Shown, Vec<String>> {
        let unknown = self.given.keys().filter(|key| !self.known.contains(*key));
        self.mistakes.extend(unknown.map(|key| format!("{key}: there is no such setting")));
        if self.mistakes.is_empty() {
            let text = toml::to_string_pretty(&self.effective).expect("a table of plain values is TOML");
            Ok(Shown { text, in_clear: self.in_clear })
        } else {
            self.mistakes.extend(self.in_clear);
            Err(self.mistakes)
        }
    }

    fn show(&mut self, key: &str, value: toml::Value) {
        let mut table = &mut self.effective;
        let (path, name) = key.rsplit_once('.').unwrap_or(("", key));
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let inner = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table = inner.as_table_mut().expect("no setting has the name of a group");
        }
        table.insert(name.to_owned(), value);
    }
}

/// The file's text, once it is known to be TOML: the parser's own message would quote the line,
/// which may hold a secret.
fn read_toml(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match text.parse::<toml::Table>() {
        Ok(_) => Ok(text),
        Err(error) => {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            Err(format!("{}: line {line}: not TOML: {}", path.display(), error.message()))
        }
    }
}

fn flatten(source: impl config::Source) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: Value, found: &mut BTreeMap<String, String>) {
        match value.kind {
            ValueKind::Table(table) => {
                for (name, value) in table {
                    walk(&if prefix.is_empty() { name } else { format!("{prefix}.{name}") }, value, found);
                }
            }
            ValueKind::Array(values) => {
                let parts: Vec<_> = values.iter().map(ToString::to_string).collect();
                found.insert(prefix.to_owned(), parts.join(","));
            }
            other => drop(found.insert(prefix.to_owned(), other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    for (name, value) in source.collect().expect("the text was parsed before") {
        walk(&name, value, &mut found);
    }
    found
}

#[cfg(test)]
mod tests;

//! Secrets that are given, or that are in a file, which somebody may write anew while the program runs.

use std::{fs::File, io::Read, path::PathBuf};

use super::{Reader, Secret, Setting};

/// The longest secret in a file, in bytes.
const FILE_LIMIT: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Given(Secret),
    /// The whole content of a file, but for the end of its last line.
    File(PathBuf),
}

impl Source {
    /// The secret as it is now.
    ///
    /// # Errors
    /// Why the file has none.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
                let mut text = String::new();
                let read = file.take(FILE_LIMIT + 1).read_to_string(&mut text);
                if read.map_err(|error| format!("cannot be read: {error}"))? as u64 > FILE_LIMIT {
                    return Err(format!("must not be larger than {FILE_LIMIT} bytes"));
                }
                Secret::parse(text.trim_end_matches(['\r', '\n']))
            }
        }
    }
}

impl Reader {
    /// A secret that may be left out, given by `key` or by a file that `key` with `_file` names. The rule is that of
    /// the secret, which a file has to keep at the start.
    pub fn secret(&mut self, key: &str, rule: impl Fn(&Secret) -> Result<(), String>) -> Option<Source> {
        let key_of_file = format!("{key}_file");
        let has_rule = |path: &String| Source::File(path.into()).read().and_then(|secret| rule(&secret));
        let file = self.optional(&key_of_file, has_rule);
        let given = self.optional(key, rule);
        if given.is_some() && file.is_some() {
            self.mistake(&key_of_file, format!("cannot be given together with {key}"));
        }
        given.map(Source::Given).or(file.map(|path| Source::File(path.into())))
    }
}

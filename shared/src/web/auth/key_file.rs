//! The keys in a file, read again when it has changed: a key is added or taken back without a restart.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::keys::Keys;
use crate::runtime::{health::TaskStatus, lifecycle::Shutdown};

/// The longest file of keys, in bytes: a set of a hundred RSA keys.
const FILE_LIMIT: u64 = 256 * 1024;
/// How often the file is read: whoever has taken a key out of it waits no longer. It is small, and in the page cache.
const READ_EVERY: Duration = Duration::from_secs(1);

pub(super) type Parse = fn(&[u8]) -> Result<Keys, String>;

/// A file of keys. Clones share what was read.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
    /// What it is from now on: it may have no key any more.
    parse: Parse,
    text: Vec<u8>,
    keys: watch::Sender<Arc<Keys>>,
}

impl KeyFile {
    /// # Errors
    /// Why there are no keys in it.
    pub(super) fn read(path: PathBuf, first: Parse, parse: Parse) -> Result<Self, String> {
        let text = contents(&path)?;
        let keys = watch::Sender::new(Arc::new(first(&text)?));
        Ok(Self { path, parse, text, keys })
    }

    pub(super) fn known(&self) -> watch::Receiver<Arc<Keys>> {
        self.keys.subscribe()
    }

    /// Keeps the keys as they are in the file, until the drain begins.
    ///
    /// # Errors
    /// Never.
    pub async fn run(mut self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        status.ok();
        while shutdown.unless_draining(sleep(READ_EVERY)).await.is_some() {
            match self.read_again() {
                Ok(changed) => {
                    match changed {
                        Some(0) => {
                            tracing::error!("the file of keys has none that can be used: every token is refused")
                        }
                        Some(keys) => tracing::info!(keys, "the file of keys has changed"),
                        None => {}
                    }
                    status.ok();
                }
                // It may be half written.
                Err(error) => status.failing(&error, "cannot use the file of keys; those read last stay"),
            }
        }
        Ok(())
    }

    /// How many keys there are, where they are others.
    fn read_again(&mut self) -> Result<Option<usize>, String> {
        let text = contents(&self.path)?;
        if text == self.text {
            return Ok(None);
        }
        let keys = (self.parse)(&text)?;
        let number = keys.len();
        self.keys.send_replace(Arc::new(keys));
        self.text = text;
        Ok(Some(number))
    }
}

fn contents(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > FILE_LIMIT {
        return Err(format!("must not be larger than {FILE_LIMIT} bytes"));
    }
    std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
impl KeyFile {
    /// Of no file.
    pub(super) fn of(keys: Keys) -> Self {
        let parse = |_: &[u8]| Err("there is no file".into());
        Self { path: PathBuf::new(), parse, text: Vec::new(), keys: watch::Sender::new(Arc::new(keys)) }
    }
}

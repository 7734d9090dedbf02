//! What pools connect with, where it is in a file. A pool keeps what it was made with, so it is told when the file has
//! changed: new connections use it, those that are open go on, and end after their time.

use std::time::Duration;

use tokio::time::sleep;

use super::{Address, Pool, Settings};
use crate::runtime::{config::Secret, health::TaskStatus, lifecycle::Shutdown};

/// How often the file is read: for as long, at most, connections are tried with a password that has ended.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Keeps pools at what is in the file.
#[derive(Debug)]
pub struct PasswordRenewal {
    address: Address,
    pools: Vec<Pool>,
}

impl Settings {
    /// That of `pools`, where their address is in a file.
    #[must_use]
    pub fn renewal(&self, pools: &[&Pool]) -> Option<PasswordRenewal> {
        let pools = pools.iter().copied().cloned().collect();
        self.address.is_in_file().then(|| PasswordRenewal { address: self.address.clone(), pools })
    }
}

impl PasswordRenewal {
    /// Until the drain begins.
    ///
    /// # Errors
    /// Never.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        // What the pools were made with is not known here, and does no harm a second time.
        let mut known = None;
        while shutdown.unless_draining(sleep(READ_EVERY)).await.is_some() {
            match self.renew(&mut known) {
                Ok(()) => status.ok(),
                Err(error) => {
                    status.failing(&error, "cannot use database.url_file; connecting with what it had before")
                }
            }
        }
        Ok(())
    }

    fn renew(&self, known: &mut Option<Secret>) -> Result<(), sqlx::Error> {
        let (url, options) = self.address.now()?;
        if known.as_ref() == Some(&url) {
            return Ok(());
        }
        for pool in &self.pools {
            pool.connect_with(options.clone());
        }
        if known.replace(url).is_some() {
            tracing::info!("database.url_file has changed: new connections use it");
        }
        Ok(())
    }
}

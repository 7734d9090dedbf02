//! What the services could be replaced by, beside them: on the same rows, one Postgres and one Kafka, a turn each in
//! every round. `PEERS` is the folder that `dev/provide peers` fills.

pub mod before;
pub mod days;
pub mod death;
mod debezium;
pub mod delay;
pub mod placing;
mod process;
pub mod producing;
pub mod relay;
mod relayed;

use std::{env, path::PathBuf};

use anyhow::{Context, Result};

/// Where the peers' programs are.
fn folder() -> Result<PathBuf> {
    env::var_os("PEERS").map(PathBuf::from).context("PEERS is not set: run make peers")
}

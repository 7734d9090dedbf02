//! `order-service orders`.

use std::path::PathBuf;

use clap::Subcommand;
use shared::{
    contract::message::timestamp,
    runtime::{database::Pool, lifecycle::Exit, terminal},
};
use time::OffsetDateTime;

use crate::export::{self, Export, Format};

#[derive(Debug, Subcommand)]
pub enum Orders {
    /// Writes final orders into files, with a manifest of counts and SHA-256 hashes. Changes nothing in the database. Where
    /// it was ended in the middle, the same command goes on.
    Export {
        /// Orders placed before this moment: a day (its beginning in UTC) or RFC 3339.
        #[arg(long, value_name = "DATE", value_parser = day_or_moment)]
        before: OffsetDateTime,
        /// The folder for the files, made where it is not there.
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Orders of one file: what is lost of the work where it is ended in the middle.
        #[arg(long, value_name = "ORDERS", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        per_file: u32,
    },
}

impl Orders {
    /// # Errors
    /// The database's or the disk's, or the folder has an export of something else.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<Exit> {
        let Self::Export { before, to, format, per_file } = self;
        // Its manifest would call it complete, and the orders until then would be missing.
        if !export::is_past(pool, before).await? {
            terminal::complain("--before: is in the future by the database's clock: name a moment that has passed");
            return Ok(Exit::WrongSettings);
        }
        let export = Export { pool: pool.clone(), before, folder: to, format, per_file };
        // Whether anybody reads how far it has come or not.
        export::run(&export, &mut terminal::ToWhoeverReads(std::io::stderr())).await.map(|()| Exit::Stopped)
    }
}

fn day_or_moment(text: &str) -> Result<OffsetDateTime, String> {
    let moment = timestamp(text).or_else(|| timestamp(&format!("{text}T00:00:00Z")));
    moment.ok_or_else(|| "must be a day like 2026-11-22 or a moment like 2026-11-22T17:04:05Z".into())
}

//! What an export has written so far. A file that stands here is whole, and on the disk.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Export, Format};
use crate::order::{OrderRef, PlaceInOrders};

const NAME: &str = "manifest.json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    #[serde(with = "time::serde::rfc3339")]
    before: OffsetDateTime,
    format: Format,
    pub orders: u64,
    /// Every order of before that was final when it was looked at is in the files.
    pub complete: bool,
    pub files: Vec<Written>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Written {
    pub name: String,
    pub orders: u64,
    pub bytes: u64,
    pub sha256: String,
    /// The last order in it.
    pub last: String,
    #[serde(with = "time::serde::rfc3339")]
    pub last_placed_at: OffsetDateTime,
}

impl Manifest {
    pub(super) fn begin_or_go_on(export: &Export) -> anyhow::Result<Self> {
        let (path, shown) = (export.folder.join(NAME), export.folder.display());
        if !path.exists() {
            let (before, format) = (export.before, export.format);
            return Ok(Self { before, format, orders: 0, complete: false, files: Vec::new() });
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let found: Self = serde_json::from_str(&text).with_context(|| format!("{} is no manifest", path.display()))?;
        ensure!(
            found.before == export.before && found.format == export.format,
            "{shown} has an export with another --before or --format: name another folder"
        );
        for file in &found.files {
            let bytes = fs::metadata(export.folder.join(&file.name)).map(|it| it.len()).unwrap_or_default();
            ensure!(
                bytes == file.bytes,
                "{} in {shown} is not as its manifest says: export into another folder",
                file.name
            );
        }
        Ok(found)
    }

    /// Behind everything that is written.
    pub(super) fn end(&self) -> PlaceInOrders {
        self.files.last().map_or(PlaceInOrders::BEGINNING, |file| PlaceInOrders {
            placed_at: file.last_placed_at,
            order_id: OrderRef::parse(&file.last).map_or(i64::MAX, OrderRef::number),
        })
    }

    pub(super) fn add(&mut self, written: Written) {
        self.orders += written.orders;
        self.files.push(written);
    }

    /// In one step: whoever reads it sees the one before or this one.
    pub(super) fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let part = folder.join(format!("{NAME}.part"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&part)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            writeln!(file)?;
            file.sync_all()?;
            fs::rename(&part, folder.join(NAME))?;
            File::open(folder)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", folder.join(NAME).display()))
    }
}

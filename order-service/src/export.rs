//! Final orders are written into files, for whoever lets them leave the database afterwards. A file is whole and named by the
//! manifest, or it is written again: a process that ends in the middle leaves nothing twice and nothing out.

mod file;
mod manifest;

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use shared::runtime::database::Pool;
use time::OffsetDateTime;
use uuid::Uuid;

use self::{file::Writer, manifest::Manifest};
use crate::order::PlaceInOrders;

/// Orders of one question. Of 200 lines each they are 5 MB, which is all that is in memory.
const PAGE: i64 = 1000;
/// Held by the process that writes into the folder.
const LOCK: &str = ".lock";

/// How an order is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line of JSON an order, as the API answers it.
    #[default]
    Jsonl,
    /// A row a line of an order, below a row of names.
    Csv,
}

/// What is wanted.
#[derive(Debug)]
pub struct Export {
    pub pool: Pool,
    pub before: OffsetDateTime,
    pub folder: PathBuf,
    pub format: Format,
    pub per_file: u32,
}

struct Row {
    order_id: i64,
    customer_ref: String,
    status: String,
    version: i32,
    placed_at: OffsetDateTime,
    product_ids: Vec<Uuid>,
    quantities: Vec<i32>,
}

impl Row {
    fn place(&self) -> PlaceInOrders {
        PlaceInOrders { placed_at: self.placed_at, order_id: self.order_id }
    }

    fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "Fulfilled" | "Cancelled")
    }
}

/// Whether no order can be placed any more before that moment.
///
/// # Errors
/// The database's.
pub async fn is_past(pool: &Pool, before: OffsetDateTime) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT $1::timestamptz <= now() AS "is_past!""#, before).fetch_one(pool).await
}

/// Writes what is not written yet, and a line for each file to `progress`.
///
/// # Errors
/// The database's or the disk's; another process exports into the folder, or what is there is of another export. The files
/// that the manifest names are whole, and the next call goes on behind them.
pub async fn run(export: &Export, progress: &mut impl Write) -> anyhow::Result<()> {
    let shown = export.folder.display();
    fs::create_dir_all(&export.folder).with_context(|| format!("cannot make the folder {shown}"))?;
    let lock = fs::File::create(export.folder.join(LOCK)).with_context(|| format!("cannot write into {shown}"))?;
    ensure!(lock.try_lock().is_ok(), "another process exports into {shown}");
    let mut manifest = Manifest::begin_or_go_on(export)?;
    let mut pages = Pages { export, after: manifest.end(), rows: Vec::new().into_iter(), is_last: false };
    while !manifest.complete {
        match write_file(export, &mut pages, manifest.files.len() + 1).await? {
            Some(written) => {
                manifest.add(written);
                let last = &manifest.files[manifest.files.len() - 1];
                writeln!(
                    progress,
                    "{}: {} orders, {} in all, up to {}",
                    last.name, last.orders, manifest.orders, last.last
                )?;
            }
            None => manifest.complete = true,
        }
        manifest.save(&export.folder)?;
    }
    writeln!(progress, "{} orders in {} files, complete", manifest.orders, manifest.files.len())?;
    Ok(())
}

/// The next file, none where no order is left.
async fn write_file(
    export: &Export,
    pages: &mut Pages<'_>,
    number: usize,
) -> anyhow::Result<Option<manifest::Written>> {
    let Some(first) = pages.next().await? else { return Ok(None) };
    let mut file = Writer::create(&export.folder, export.format, number)?;
    let mut row = Some(first);
    while let Some(one) = row {
        file.write(&one)?;
        row = if file.orders() < u64::from(export.per_file) { pages.next().await? } else { None };
    }
    file.close().map(Some)
}

/// Final orders, one after the other, oldest first.
struct Pages<'a> {
    export: &'a Export,
    after: PlaceInOrders,
    rows: std::vec::IntoIter<Row>,
    is_last: bool,
}

impl Pages<'_> {
    async fn next(&mut self) -> Result<Option<Row>, sqlx::Error> {
        loop {
            if let Some(row) = self.rows.find(Row::is_final) {
                return Ok(Some(row));
            }
            if self.is_last {
                return Ok(None);
            }
            let page = page(&self.export.pool, self.after, self.export.before).await?;
            self.is_last = i64::try_from(page.len()).is_ok_and(|count| count < PAGE);
            self.after = page.last().map_or(self.after, Row::place);
            self.rows = page.into_iter();
        }
    }
}

/// Whatever their status is: a page of final ones might have to look at any number of others.
async fn page(pool: &Pool, after: PlaceInOrders, before: OffsetDateTime) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"
        SELECT order_id, customer_ref, status, version, placed_at, product_ids, quantities FROM orders
        WHERE (placed_at, order_id) > ($1, $2) AND placed_at < $3
        ORDER BY placed_at, order_id LIMIT $4
        "#,
        after.placed_at,
        after.order_id,
        before,
        PAGE
    )
    .fetch_all(pool)
    .await
}

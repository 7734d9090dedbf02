//! One file of an export, under another name until it is whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;

use super::{Format, Row, manifest::Written};
use crate::order::{Order, OrderItem, OrderRef, OrderSummary, PlaceInOrders};

const CSV_NAMES: &str = "orderRef,customerRef,statusName,orderVersion,placedAt,lineNumber,productId,quantity";

pub(super) struct Writer {
    folder: PathBuf,
    name: String,
    format: Format,
    out: BufWriter<Hashed>,
    orders: u64,
    last: Option<PlaceInOrders>,
}

impl Writer {
    pub(super) fn create(folder: &Path, format: Format, number: usize) -> anyhow::Result<Self> {
        let extension = match format {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
        };
        let name = format!("orders-{number:06}.{extension}");
        let part = folder.join(format!("{name}.part"));
        // It names customers: for nobody but who exports.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)
            .with_context(|| format!("cannot write {}", part.display()))?;
        let mut out = BufWriter::new(Hashed { file, digest: Sha256::new(), bytes: 0 });
        if format == Format::Csv {
            writeln!(out, "{CSV_NAMES}")?;
        }
        Ok(Self { folder: folder.to_owned(), name, format, out, orders: 0, last: None })
    }

    pub(super) fn orders(&self) -> u64 {
        self.orders
    }

    pub(super) fn write(&mut self, row: &Row) -> anyhow::Result<()> {
        match self.format {
            Format::Jsonl => {
                serde_json::to_writer(&mut self.out, &order(row))?;
                writeln!(self.out)?;
            }
            Format::Csv => csv(&mut self.out, row)?,
        }
        self.orders += 1;
        self.last = Some(row.place());
        Ok(())
    }

    /// On the disk first, then under its name.
    pub(super) fn close(self) -> anyhow::Result<Written> {
        let Hashed { file, digest, bytes } = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let part = self.folder.join(format!("{}.part", self.name));
        fs::rename(&part, self.folder.join(&self.name)).with_context(|| format!("cannot rename {}", part.display()))?;
        let last = self.last.context("a file has an order")?;
        Ok(Written {
            name: self.name,
            orders: self.orders,
            bytes,
            sha256: digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            last: OrderRef::from_number(last.order_id).to_string(),
            last_placed_at: last.placed_at,
        })
    }
}

/// As the API answers it.
fn order(row: &Row) -> Order {
    let lines = row.product_ids.iter().zip(&row.quantities);
    Order {
        summary: OrderSummary {
            order_ref: OrderRef::from_number(row.order_id),
            customer_ref: row.customer_ref.clone(),
            number_of_items: row.product_ids.len(),
            status_name: row.status.clone(),
            placed_at: row.placed_at,
        },
        order_items: lines
            .map(|(product_id, quantity)| OrderItem { product_id: *product_id, quantity: *quantity })
            .collect(),
    }
}

fn csv(out: &mut impl Write, row: &Row) -> anyhow::Result<()> {
    let (order, placed_at) = (OrderRef::from_number(row.order_id), row.placed_at.format(&Rfc3339)?);
    let customer = cell(&row.customer_ref);
    let Row { status, version, .. } = row;
    for (number, (product_id, quantity)) in (1..).zip(row.product_ids.iter().zip(&row.quantities)) {
        writeln!(out, "{order},{customer},{status},{version},{placed_at},{number},{product_id},{quantity}")?;
    }
    Ok(())
}

/// A text of a caller's. A spreadsheet takes what begins with one of these signs for a formula, and would do what it says;
/// one that begins with the mark itself is marked too, so that whoever takes one mark off has the text again.
fn cell(text: &str) -> String {
    const BEGINS_A_FORMULA: &str = "=+-@\t\r\n\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}";
    let is_marked = text.starts_with(|first| first == '\'' || BEGINS_A_FORMULA.contains(first));
    format!("\"{}{}\"", if is_marked { "'" } else { "" }, text.replace('"', "\"\""))
}

/// Knows the hash of what was written.
struct Hashed {
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds: No text of a caller is a formula where an export is opened as a spreadsheet.
    #[test]
    fn no_cell_begins_a_formula_and_each_text_can_be_had_again() {
        for begin in ["=", "+", "-", "@", "\t", "\r", "\n", "\u{ff1d}", "\u{ff0b}", "\u{ff0d}", "\u{ff20}", "'"] {
            let text = format!("{begin}cmd|' /C calc'!\"A1\"");
            let quoted = text.replace('"', "\"\"");
            assert_eq!(cell(&text), format!("\"'{quoted}\""));
        }
        for text in ["C-1001", "a=b", "", "1+1", "é"] {
            assert_eq!(cell(text), format!("\"{text}\""));
        }
    }
}

//! `order-service customers`.

use std::io::Write;

use clap::Subcommand;
use shared::{
    contract::{customer::CustomerRef, text::parse_reason},
    operators::command::Progress,
    runtime::database::Pool,
};

use super::Who;
use crate::erasure;

#[derive(Debug, Subcommand)]
pub enum Customers {
    /// Puts a pseudonym into all orders of a customer. The audit tells that it was done, not of whom.
    Erase {
        #[arg(value_parser = customer)]
        customer_ref: CustomerRef,
        /// Why; kept in the audit, so it should not name the customer.
        #[arg(long, value_parser = parse_reason)]
        reason: String,
        /// JSON instead of a sentence.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        who: Who,
    },
}

impl Customers {
    /// # Errors
    /// The database's; what was done before stays done.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        let Self::Erase { customer_ref, reason, json, who } = self;
        let mut progress = Progress::begin();
        let tell = |orders: u64| progress.tell(format_args!("{orders} orders have a pseudonym so far"));
        let done = erasure::erase(pool, &customer_ref, &who.author(), &reason, tell).await?;
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(&done)?)?;
        } else {
            writeln!(out, "{} orders have a pseudonym now", done.orders)?;
        }
        Ok(())
    }
}

fn customer(text: &str) -> Result<CustomerRef, String> {
    CustomerRef::parse(text).ok_or_else(|| "must be 1 to 64 visible characters".into())
}

//! The admin routes' work on the database itself, for operators with a shell.

mod customers;
mod messages;
mod orders;

use clap::Args;
pub use customers::Customers;
pub use messages::Messages;
pub use orders::Orders;
use shared::{
    operators::command::{self, PauseArguments, Who},
    runtime::database::Pool,
};

use crate::pause;

/// Lets announcing rest on all instances; orders are taken meanwhile.
#[derive(Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    how: PauseArguments,
}

/// Ends the pause of announcing.
#[derive(Args, Debug)]
pub struct Resume {
    #[command(flatten)]
    who: Who,
}

impl Pause {
    /// # Errors
    /// The database's.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        let begun = pause::begin(pool, &self.how.wanted(), &self.how.who.author()).await?;
        command::print_paused("announcing", &begun)
    }
}

impl Resume {
    /// # Errors
    /// The database's.
    pub async fn run(self, pool: &Pool) -> anyhow::Result<()> {
        let was = pause::end(pool, &self.who.author()).await?;
        command::print_resumed("announcing", was)
    }
}

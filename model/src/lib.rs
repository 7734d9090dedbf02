//! Who publishes a message, as a state machine small enough to be explored: two processes, one or two
//! messages, the log each instance writes, the locks, the topic, and everything that can go wrong
//! between them.
//!
//! Each [`Action`] names the function of the outbox, or of order-service, that it stands for. What a process
//! has been told and what is true can differ: answers are on their way, locks are lost before that is
//! noticed, and a transaction may commit hours after whoever sent it is gone.

mod action;
mod adoption;
pub mod announcing;
mod bug;
mod faults;
mod fingerprint;
mod own_log;
mod partitions;
mod placement;
mod properties;
mod sending;
mod session;
mod set;
mod state;
mod step;

pub use action::Action;
pub use adoption::Adoption;
pub use bug::Bug;
pub use faults::Faults;
pub use own_log::OwnLog;
pub use placement::{Answer, Attempt, Phase, Placing};
pub use set::Set;
pub use state::{Instance, Life, Mark, Message, Process, Row, State};

pub const PROCESSES: usize = 2;
pub const MESSAGES: usize = 2;
/// The longest log: each message draws one number of an identity's log, and one more for each attempt
/// that the database aborts.
pub const LOG_LENGTH: usize = 3;
/// Two at the start, and one more for each kill, each lost session and each doubt.
pub const IDENTITIES: usize = 6;

/// The protocol for the first `messages` messages, with at most so many faults.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub messages: usize,
    /// The process that each message's caller has sent it to, and sends it to again.
    pub writers: [usize; MESSAGES],
    pub limits: Faults,
    pub bug: Option<Bug>,
}

impl Protocol {
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

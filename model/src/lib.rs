//! Who publishes a message, as a state machine small enough to be explored whole: two processes, one
//! or two messages, the table, the locks, the topic, and everything that can go wrong between them.
//!
//! Each [`Action`] names the function of order-service it stands for. What a process has been told
//! and what is true can differ: answers are on their way, locks are lost before that is noticed.

mod set;
mod step;

pub use set::Set;
pub use step::Action;

/// Identities that a run may use up; states beyond are not explored.
pub const IDENTITIES: u8 = 6;
pub const PROCESSES: u8 = 2;

/// A fault planted in the protocol, to show that the exploration finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Rows are loaded by SELECT instead of being claimed.
    ReloadBySelect,
    /// Messages are handed over without a confirmed lock.
    HandOverUnconfirmed,
    /// Another identity is ended after one look.
    OneLook,
    /// A row placed under an identity that has ended enters the queue.
    EnqueueForEnded,
    /// Rows are claimed from living owners.
    ClaimFromLiving,
    /// The identity is replaced while messages are in flight.
    ReplaceInFlight,
    /// An old confirmation counts while the identity is being replaced.
    TrustWhileReplacing,
}

/// The protocol for `messages` messages, with at most so many faults.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub messages: u8,
    pub kills: u8,
    pub pauses: u8,
    pub lost_sessions: u8,
    pub lost_answers: u8,
    pub bug: Option<Bug>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Running,
    /// SIGSTOP: acts on nothing; its connections stay.
    Paused,
    Dead,
}

/// A message in the hands of a process, under the identity it was placed or claimed with.
pub type Held = Set<u16>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub life: Life,
    pub id: u8,
    /// The session holds the lock of `id`.
    pub locked: bool,
    /// A confirmation of the lock is recent enough to hand over (`Instance::confirmed`).
    pub confirmed: bool,
    /// The lock has been held without a gap for `takeover_after`.
    pub settled: bool,
    /// Placed in the table, and not known to be yet.
    pub answers: Held,
    /// In the queue or waiting for a back-off.
    pub memory: Held,
    /// With the producer.
    pub in_flight: Held,
    /// Acknowledged and not yet marked.
    pub delivered: Held,
    /// A claim's answer was lost.
    pub doubt: bool,
    /// Identities whose lock it has seen free.
    pub seen_free: Set<u8>,
}

/// A row of the outbox; owner 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub owner: u8,
    pub published: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub processes: [Process; PROCESSES as usize],
    pub rows: [Option<Row>; 2],
    /// Placements sent to the server and not yet carried out: who sent it and with which owner.
    pub placing: [Option<(u8, u8)>; 2],
    pub ended: Set<u8>,
    /// How often each message is on the topic; more than two are two.
    pub copies: [u8; 2],
    /// Messages that may be there twice by what the guarantees allow.
    pub excused: Set<u8>,
    /// Handed over by a process that was killed: the broker may still take them.
    pub ghosts: Set<u8>,
    pub next_id: u8,
    pub kills: u8,
    pub pauses: u8,
    pub lost_sessions: u8,
    pub lost_answers: u8,
}

impl State {
    /// Every message was placed and is marked as published.
    #[must_use]
    pub fn is_done(&self, messages: u8) -> bool {
        (0..usize::from(messages)).all(|m| self.rows[m].is_some_and(|row| row.published))
    }

    /// In how many memories a message is from which it may still be handed over: a process whose
    /// identity was ended by another drops what it holds as soon as it knows.
    #[must_use]
    pub fn memories_of(&self, message: u8) -> usize {
        let living =
            self.processes.iter().filter(|process| process.life != Life::Dead && !self.ended.contains(process.id));
        living.filter(|process| process.memory.contains(step::held(message, process.id))).count()
    }

    fn lock_is_held(&self, id: u8) -> bool {
        self.processes.iter().any(|process| process.life != Life::Dead && process.id == id && process.locked)
    }
}

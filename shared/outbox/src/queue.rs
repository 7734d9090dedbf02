//! The hot path from the table to the publisher: bounded, in memory, fed by placement and by what is
//! reloaded from the table.
//!
//! Room is taken before a row is written or read and given back when the message is committed as
//! published or failed. A row without room is written all the same and read later: full is not an error
//! and blocks nobody.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use tokio::sync::mpsc;

use crate::{
    instance::Instance,
    instance_id::InstanceId,
    log::{Log, own::OwnLog},
    message::{Content, Message},
    metrics::{QUEUE_CAPACITY, QUEUE_LENGTH},
    rebroadcast,
    slot::{Slot, Slots},
};

/// A message in memory: under which identity it came there and why it is to be sent, and the room it takes.
#[derive(Debug)]
pub struct Queued {
    pub message: Message,
    pub holder: InstanceId,
    pub source: Source,
    pub slot: Slot,
    pub origin: Origin,
    pub since: Instant,
}

/// Why this process sends a message.
#[derive(Clone, Debug)]
pub enum Source {
    /// It sends the log in which the message stands.
    Log(Arc<Log>),
    /// An operator wants a failed message sent again.
    Retry,
    /// A span of time is published once more.
    Rebroadcast(Arc<rebroadcast::RebroadcastPage>),
}

/// How a message came into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Placed,
    Reloaded,
}

/// The sending end. The queue closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Queue {
    slots: Slots,
    // Unbounded, because the slots bound it.
    sender: mpsc::UnboundedSender<Queued>,
    instance: Instance,
    is_strict: bool,
}

/// The receiving end, the publisher's.
pub type Receiver = mpsc::UnboundedReceiver<Queued>;

impl Queue {
    #[must_use]
    pub fn new(capacity: u32, is_strict: bool, instance: Instance) -> (Self, Receiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { slots: Slots::new(capacity), sender, instance, is_strict }, receiver)
    }

    /// Whether what is told before it has to be acknowledged first: it comes into memory by the table only then.
    #[must_use]
    pub fn has_a_turn(&self, content: &Content) -> bool {
        self.is_strict && content.later_version().is_some()
    }

    /// Whether any message may have to wait so.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// The identity under which messages enter this queue.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The log that this process writes now.
    #[must_use]
    pub fn log(&self) -> Arc<OwnLog> {
        self.instance.log()
    }

    /// Room for one message, if there is any now.
    #[must_use]
    pub fn try_slot(&self) -> Option<Slot> {
        self.slots.try_take()
    }

    /// Waits for room for `count` messages. Those that ask for less, later, wait behind: what has
    /// been in the table for long goes before what is new.
    pub async fn slots(&self, count: NonZeroUsize) -> Vec<Slot> {
        self.slots.take(count).await
    }

    /// Lets a message in. What came under an identity that has ended meanwhile is left to whoever adopts its log.
    /// Holds: No message is in the queue without a slot, and no slot is given back before the mark is committed: it
    /// travels with the message.
    pub fn push(&self, message: Message, holder: InstanceId, source: Source, slot: Slot, origin: Origin) {
        if holder == self.instance.id() {
            // Closed only when the publisher is gone, in the drain: the row stays in the table then.
            drop(self.sender.send(Queued { message, holder, source, slot, origin, since: Instant::now() }));
        }
    }

    /// Sets its gauges, each time that it is called. Does not keep it open.
    pub fn gauges(&self) -> impl Fn() + Send + Sync + use<> {
        let slots = self.slots.clone();
        move || {
            QUEUE_LENGTH.set_count(slots.taken());
            QUEUE_CAPACITY.set_count(slots.capacity());
        }
    }
}

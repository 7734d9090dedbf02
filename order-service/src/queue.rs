//! The hot path from the table to the publisher: bounded, in memory, fed by placement and by what is
//! reloaded from the table.
//!
//! Room is taken before a row is written or read and given back when the message is committed as
//! published or failed. A row without room is written all the same and read later: full is not an error
//! and blocks nobody.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    instance::{Instance, InstanceId},
    log::{Log, own::OwnLog},
    messages::rebroadcast,
    metrics::{QUEUE_CAPACITY, QUEUE_LENGTH},
    outbox::Message,
};

/// Room for one message.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held for its drop, which gives the room back")] OwnedSemaphorePermit);

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
    Rebroadcast(Arc<rebroadcast::Page>),
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
    slots: Arc<Semaphore>,
    capacity: u32,
    // Unbounded, because the slots bound it.
    sender: mpsc::UnboundedSender<Queued>,
    instance: Instance,
}

/// The receiving end, the publisher's.
pub type Receiver = mpsc::UnboundedReceiver<Queued>;

impl Queue {
    #[must_use]
    pub fn new(capacity: u32, instance: Instance) -> (Self, Receiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let slots = Arc::new(Semaphore::new(capacity as usize));
        (Self { slots, capacity, sender, instance }, receiver)
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
        Arc::clone(&self.slots).try_acquire_owned().ok().map(Slot)
    }

    /// Waits for room for `count` messages. Those that ask for less, later, wait behind: what has
    /// been in the table for long goes before what is new.
    pub async fn slots(&self, count: NonZeroUsize) -> Vec<Slot> {
        let count = u32::try_from(count.get()).unwrap_or(u32::MAX);
        let acquired = Arc::clone(&self.slots).acquire_many_owned(count).await;
        let mut rest = acquired.expect("the semaphore is never closed");
        std::iter::from_fn(|| rest.split(1).map(Slot)).collect()
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

    /// Tells how full it is. Does not keep it open.
    pub fn tell(&self) -> impl Fn() + Send + Sync + use<> {
        let (slots, capacity) = (Arc::clone(&self.slots), u64::from(self.capacity));
        move || {
            QUEUE_LENGTH.set_count(capacity.saturating_sub(slots.available_permits() as u64));
            QUEUE_CAPACITY.set_count(capacity);
        }
    }
}

/// Slots of a queue that is not there.
#[cfg(test)]
pub(crate) fn slots(count: usize) -> Vec<Slot> {
    let slots = Arc::new(Semaphore::new(count));
    std::iter::from_fn(|| Arc::clone(&slots).try_acquire_owned().ok().map(Slot)).collect()
}

//! The hot path from the table to the publisher: bounded, in memory, fed by placement and claim.
//!
//! Room is taken before a row is written or claimed and given back when the row is committed as
//! published or failed. A row without room is written all the same, owned by nobody, and claimed
//! later: full is not an error and blocks nobody.

use std::{num::NonZeroUsize, sync::Arc, time::Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    instance::{Instance, InstanceId},
    metrics::{OVERFLOWED, QUEUE_CAPACITY, QUEUE_LENGTH},
    outbox::Message,
};

/// Room for one message.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held for its drop, which gives the room back")] OwnedSemaphorePermit);

/// A message in memory: whose it is, and the room it takes.
#[derive(Debug)]
pub struct Queued {
    pub message: Message,
    pub owner: InstanceId,
    pub slot: Slot,
    pub origin: Origin,
    pub since: Instant,
}

/// How a message came into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Placed,
    Claimed,
}

/// The sending end. The queue closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Queue {
    slots: Arc<Semaphore>,
    capacity: u32,
    // Unbounded, because the slots bound it.
    sender: mpsc::UnboundedSender<Queued>,
    instance: Instance,
    overflowed: Arc<Notify>,
}

/// The receiving end, the publisher's.
pub type Receiver = mpsc::UnboundedReceiver<Queued>;

impl Queue {
    #[must_use]
    pub fn new(capacity: u32, instance: Instance) -> (Self, Receiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let slots = Arc::new(Semaphore::new(capacity as usize));
        (Self { slots, capacity, sender, instance, overflowed: Arc::default() }, receiver)
    }

    /// The identity under which rows enter this queue.
    #[must_use]
    pub fn owner(&self) -> InstanceId {
        self.instance.id()
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

    /// Lets a message in. What belongs to an identity that has ended meanwhile is left to the claim.
    pub fn push(&self, message: Message, owner: InstanceId, slot: Slot, origin: Origin) {
        if owner == self.owner() {
            // Closed only when the publisher is gone, in the drain: the row stays in the table then.
            drop(self.sender.send(Queued { message, owner, slot, origin, since: Instant::now() }));
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

    /// Rows may be owned by this process that never came in here.
    pub fn doubt(&self) {
        self.instance.doubt();
    }

    /// A row was written without room for it.
    pub fn overflow(&self) {
        OVERFLOWED.add(1);
        self.overflowed.notify_one();
    }

    /// Until a row was written without room for it.
    pub async fn overflowed(&self) {
        self.overflowed.notified().await;
    }
}

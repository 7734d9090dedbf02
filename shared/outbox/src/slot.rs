//! Room in memory, a message each: held from before its row is written or read until it is marked.

use std::{num::NonZeroUsize, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for one message.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held for its drop, which gives the room back")] OwnedSemaphorePermit);

/// The room there is.
#[derive(Clone, Debug)]
pub struct Slots {
    free: Arc<Semaphore>,
    capacity: u32,
}

impl Slots {
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(capacity as usize)), capacity }
    }

    /// Room for one message, if there is any now.
    #[must_use]
    pub fn try_take(&self) -> Option<Slot> {
        Arc::clone(&self.free).try_acquire_owned().ok().map(Slot)
    }

    /// Waits for room for `count` messages, behind those who have asked before.
    pub async fn take(&self, count: NonZeroUsize) -> Vec<Slot> {
        let count = u32::try_from(count.get()).unwrap_or(u32::MAX);
        let acquired = Arc::clone(&self.free).acquire_many_owned(count).await;
        let mut rest = acquired.expect("the semaphore is never closed");
        std::iter::from_fn(|| rest.split(1).map(Slot)).collect()
    }

    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity.into()
    }

    #[must_use]
    pub fn taken(&self) -> u64 {
        self.capacity().saturating_sub(self.free.available_permits() as u64)
    }
}

//! What is handed to the producer and not yet marked. Bounded; and whoever holds the whole bound
//! knows that nothing is in flight and nothing can be handed over.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::metrics::IN_FLIGHT;

/// How many messages may be in flight.
#[derive(Clone, Debug)]
pub struct Flight {
    permits: Arc<Semaphore>,
    all: u32,
    given_up: Arc<GivenUp>,
}

#[derive(Debug, Default)]
struct GivenUp {
    is_wanted: AtomicBool,
    wanted: Notify,
}

/// One or more messages in flight; given back when they are marked or come back.
pub type Permit = OwnedSemaphorePermit;

impl Flight {
    #[must_use]
    pub fn new(all: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(all as usize)), all, given_up: Arc::default() }
    }

    /// Waits until `count` more messages may be in flight; `count` must not exceed the bound.
    pub async fn begin(&self, count: u32) -> Permit {
        Arc::clone(&self.permits).acquire_many_owned(count).await.expect("the semaphore is never closed")
    }

    /// Waits until nothing is in flight, and keeps it so while the permit is held.
    pub async fn landed(&self) -> Permit {
        self.begin(self.all).await
    }

    /// What is in flight is not waited for any longer: the producers let it go.
    pub fn give_up(&self) {
        self.given_up.is_wanted.store(true, Ordering::Release);
        self.given_up.wanted.notify_one();
    }

    /// Until somebody gives up what is in flight.
    pub fn is_given_up(&self) -> impl Future<Output = ()> + use<> {
        let given_up = Arc::clone(&self.given_up);
        async move { given_up.wanted.notified().await }
    }

    /// Whether somebody has, since this was asked last.
    #[must_use]
    pub fn take_given_up(&self) -> bool {
        self.given_up.is_wanted.swap(false, Ordering::Acquire)
    }

    /// Sets its gauge, each time that it is called.
    pub fn gauges(&self) -> impl Fn() + Send + Sync + use<> {
        let Self { permits, all, .. } = self.clone();
        move || IN_FLIGHT.set_count(u64::from(all).saturating_sub(permits.available_permits() as u64))
    }

    #[must_use]
    pub fn bound(&self) -> u32 {
        self.all
    }
}

//! A caller's share of the connections for reads: who asks for much, or for what is slow, waits for its own requests,
//! and others find a connection free.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use actix_web::{dev::ServiceRequest, web::Data};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::rate_limit::who;
use crate::{
    runtime::database::{Pool, REQUESTS_ACQUIRE_WITHIN},
    web::problem::Problem,
};

/// What the callers have who are asking now.
#[derive(Debug)]
pub struct Shares {
    each: usize,
    /// Callers are known by a hash that is secret to this process, so that names need no room.
    hasher: RandomState,
    /// Of those who ask or wait, of whom there are no more than connections.
    asking: Mutex<HashMap<u64, Arc<Semaphore>>>,
}

/// The right to one connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Data<Shares>,
    who: u64,
    permit: Option<OwnedSemaphorePermit>,
}

impl Shares {
    /// Of `pool` one caller has four fifths: never all, unless there is only one connection.
    #[must_use]
    pub fn of(pool: &Pool) -> Self {
        Self::each(share_of(pool.max_size()))
    }

    fn each(each: usize) -> Self {
        Self { each, hasher: RandomState::new(), asking: Mutex::default() }
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<u64, Arc<Semaphore>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn share_of(connections: u32) -> usize {
    (connections as usize * 4 / 5).max(1)
}

impl Share {
    /// Waits for what the caller of a read may have. None where the service sets no bound.
    ///
    /// # Errors
    /// 503 where its own requests have it for longer than a connection is waited for.
    pub(super) async fn take(request: &ServiceRequest) -> Result<Option<Self>, Problem> {
        let Some(shares) = request.app_data::<Data<Shares>>() else { return Ok(None) };
        let who = shares.hasher.hash_one(who(request));
        Self::of(shares, who).await.map(Some)
    }

    async fn of(shares: &Data<Shares>, who: u64) -> Result<Self, Problem> {
        let all = Arc::clone(shares.asking().entry(who).or_insert_with(|| Arc::new(Semaphore::new(shares.each))));
        let mut share = Self { shares: shares.clone(), who, permit: None };
        match timeout(REQUESTS_ACQUIRE_WITHIN, all.acquire_owned()).await {
            Ok(permit) => share.permit = permit.ok(),
            Err(_) => return Err(Problem::unavailable()),
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut asking = self.shares.asking();
        if asking.get(&self.who).is_some_and(|all| Arc::strong_count(all) == 1) {
            asking.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_leaves_others_a_connection_wherever_there_are_two() {
        assert_eq!([1, 2, 3, 5, 10].map(share_of), [1, 1, 2, 4, 8]);
        assert!((2..1000).all(|connections| (1..connections as usize).contains(&share_of(connections))));
    }

    #[tokio::test]
    async fn a_caller_waits_for_its_own_requests_and_nobody_is_remembered() {
        let shares = Data::new(Shares::each(2));
        let one = Share::of(&shares, 1).await.unwrap();
        let other = Share::of(&shares, 1).await.unwrap();
        assert!(Share::of(&shares, 1).await.is_err());
        let of_another = Share::of(&shares, 2).await.unwrap();
        drop(one);
        let again = Share::of(&shares, 1).await.unwrap();
        assert_eq!(shares.asking().len(), 2);
        drop((other, of_another, again));
        assert!(shares.asking().is_empty());
    }
}

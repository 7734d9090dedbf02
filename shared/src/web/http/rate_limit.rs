//! How many requests a caller may make, as a token bucket for each. It is counted in this process
//! alone: two instances let twice as much through.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    Error, HttpMessage,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};

use super::{address, settings::Rate};
use crate::web::{auth::Caller, problem::Problem};

/// Callers kept in mind, 16 bytes and some each. Only who has called within the last
/// `burst / per_second` is in it.
const MOST_CALLERS: usize = 100_000;
/// How often it is looked at most who can be forgotten: a look takes about a millisecond.
const FORGET_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct RateLimit(Option<Arc<Buckets>>);

impl RateLimit {
    pub(super) fn new(rate: Rate) -> Self {
        Self((rate.per_second > 0).then(|| Arc::new(Buckets::new(rate, MOST_CALLERS))))
    }
}

/// Answers 429 where the caller is above its rate.
///
/// # Errors
/// The handler's own.
pub(super) async fn limited(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Err(problem) = charge(&request) {
        return Ok(request.error_response(problem));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Takes one request off what the caller may make. [`super::authenticate`] does it for those whose token is
/// not good, whom [`limited`] never sees.
///
/// # Errors
/// 429 where the caller is above its rate.
pub(super) fn charge(request: &ServiceRequest) -> Result<(), Problem> {
    let Some(buckets) = request.app_data::<Data<RateLimit>>().and_then(|limit| limit.0.clone()) else { return Ok(()) };
    buckets.take(&who(request), Instant::now()).map_err(Problem::too_many_requests)
}

/// A caller is who the token says, on whatever address; who has none is its address.
#[derive(Hash)]
pub(super) enum RateKey {
    Caller(String, String),
    Address(Option<IpAddr>),
}

pub(super) fn who(request: &ServiceRequest) -> RateKey {
    let known = request.extensions().get::<Caller>().filter(|caller| !caller.issuer.is_empty()).cloned();
    known.map_or_else(
        || RateKey::Address(request.peer_addr().map(|peer| address::of_caller(peer.ip()))),
        |caller| RateKey::Caller(caller.issuer, caller.subject),
    )
}

#[derive(Debug)]
struct Buckets {
    /// What one request uses of a caller's time.
    each: Duration,
    /// How far ahead of the clock a caller's requests may be.
    ahead: Duration,
    most: usize,
    /// Callers are known by a hash that is secret to this process, so that names need no room.
    hasher: RandomState,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// When each caller's requests so far are paid for.
    paid: HashMap<u64, Instant>,
    looked: Option<Instant>,
}

impl Buckets {
    fn new(rate: Rate, most: usize) -> Self {
        let each = Duration::from_secs(1) / rate.per_second;
        let known = Mutex::new(Known { paid: HashMap::new(), looked: None });
        Self { each, ahead: each * rate.burst, most, hasher: RandomState::new(), known }
    }

    /// # Errors
    /// After how long the caller may ask again.
    fn take(&self, who: &RateKey, now: Instant) -> Result<(), Duration> {
        let who = self.hasher.hash_one(who);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.paid.len() >= self.most && !known.paid.contains_key(&who) {
            if known.looked.is_none_or(|looked| now >= looked + FORGET_EVERY) {
                known.looked = Some(now);
                known.paid.retain(|_, paid| *paid > now);
            }
            if known.paid.len() >= self.most {
                return Err(FORGET_EVERY);
            }
        }
        let paid = known.paid.entry(who).or_insert(now);
        let then = (*paid).max(now) + self.each;
        if then > now + self.ahead {
            return Err(then - (now + self.ahead));
        }
        *paid = then;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn caller(name: &str) -> RateKey {
        RateKey::Caller("issuer".into(), name.into())
    }

    #[test]
    fn a_burst_passes_then_the_rate_and_nobody_pays_for_another() {
        let (buckets, now) = (Buckets::new(RATE, 10), Instant::now());
        for _ in 0..3 {
            buckets.take(&caller("a"), now).unwrap();
        }
        assert_eq!(buckets.take(&caller("a"), now), Err(Duration::from_millis(100)));
        buckets.take(&caller("b"), now).unwrap();
        let later = now + Duration::from_millis(100);
        buckets.take(&caller("a"), later).unwrap();
        assert!(buckets.take(&caller("a"), later).is_err(), "one request for each 100 ms");
        let rested = later + Duration::from_secs(10);
        assert_eq!((0..9).filter(|_| buckets.take(&caller("a"), rested).is_ok()).count(), 3, "no more than the burst");
    }

    #[test]
    fn callers_kept_in_mind_are_bounded_and_those_at_rest_make_room() {
        let (buckets, now) = (Buckets::new(RATE, 2), Instant::now());
        buckets.take(&caller("a"), now).unwrap();
        buckets.take(&caller("b"), now).unwrap();
        assert!(buckets.take(&caller("c"), now).is_err());
        buckets.take(&caller("a"), now).unwrap();
        buckets.take(&caller("c"), now + FORGET_EVERY).unwrap();
        assert!(buckets.known.lock().unwrap().paid.len() <= 2);
    }
}

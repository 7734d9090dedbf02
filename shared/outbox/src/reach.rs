//! Whether messages can be sent, as operators see it: what keeps them from that is found out by several, and ends with the
//! last of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use crate::metrics::OUTAGE;

/// What one instance knows of it.
#[derive(Clone, Debug, Default)]
pub struct Reach(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    cluster: AtomicU8,
    /// Some partition takes nothing.
    stands: AtomicBool,
    /// There is no session with the database, without whose confirmations nothing is sent.
    lacks_session: AtomicBool,
}

impl Reach {
    const GOOD: u8 = 0;
    const NO_BROKER: u8 = 1;
    const REFUSED: u8 = 2;
    const FAILED: u8 = 3;

    pub(crate) fn no_broker(&self) {
        self.0.cluster.store(Self::NO_BROKER, Ordering::Relaxed);
        self.set_gauge();
    }

    pub(crate) fn refused(&self) {
        self.0.cluster.store(Self::REFUSED, Ordering::Relaxed);
        self.set_gauge();
    }

    /// The producer has failed for good, and another one may at once like it.
    pub(crate) fn failed(&self) {
        self.0.cluster.store(Self::FAILED, Ordering::Relaxed);
        self.set_gauge();
    }

    /// Whether some partition takes nothing.
    pub(crate) fn stands(&self, stands: bool) {
        self.0.stands.store(stands, Ordering::Relaxed);
        self.set_gauge();
    }

    /// Whether the session with the database is gone, and has not come back in time.
    pub(crate) fn lacks_session(&self, lacks: bool) {
        self.0.lacks_session.store(lacks, Ordering::Relaxed);
        self.set_gauge();
    }

    /// A message got through.
    pub(crate) fn delivered(&self) {
        if self.0.cluster.swap(Self::GOOD, Ordering::Relaxed) != Self::GOOD {
            self.set_gauge();
        }
    }

    /// A broker is connected. Whether that ends the outage: with nothing to send, nothing else would.
    pub(crate) fn connected(&self) -> bool {
        self.ends(Self::NO_BROKER)
    }

    /// The brokers have let a producer in. Whether that ends the outage.
    pub(crate) fn let_in(&self) -> bool {
        self.ends(Self::FAILED)
    }

    fn ends(&self, what: u8) -> bool {
        let ended = self.0.cluster.compare_exchange(what, Self::GOOD, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if ended {
            self.set_gauge();
        }
        ended
    }

    fn set_gauge(&self) {
        OUTAGE.set(if self.is_good() { 0.0 } else { 1.0 });
    }

    fn is_good(&self) -> bool {
        let Seen { cluster, stands, lacks_session } = &*self.0;
        cluster.load(Ordering::Relaxed) == Self::GOOD
            && ![stands, lacks_session].into_iter().any(|one| one.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_ends_with_the_last_of_its_reasons() {
        let reach = Reach::default();
        reach.no_broker();
        reach.lacks_session(true);
        assert!(reach.connected() && !reach.is_good());
        reach.failed();
        assert!(!reach.connected() && reach.let_in() && !reach.let_in());
        reach.refused();
        reach.stands(true);
        reach.lacks_session(false);
        reach.delivered();
        assert!(!reach.is_good());
        reach.stands(false);
        assert!(reach.is_good());
    }
}

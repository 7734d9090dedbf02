//! What is broken, how often, and in which order.

/// SplitMix64: the same seed, the same campaign.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to `bound`, which is left out.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Kill -9 of an order-service.
    KillOrders,
    /// Kill -9 of an activity-service.
    KillActivity,
    /// Kill -9 of Postgres, which stays away for a while.
    CrashPostgres,
    /// Kill -9 of the broker, which stays away for a while.
    KillBroker,
    /// One instance loses its connections to Postgres, and for a while gets none.
    Cut,
    /// SIGSTOP of one instance, and SIGCONT after a while.
    Pause,
    /// SIGTERM of one instance; another one comes in its place.
    Stop,
}

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub order_kills: usize,
    pub activity_kills: usize,
    pub postgres_crashes: usize,
    pub broker_kills: usize,
    pub cuts: usize,
    pub pauses: usize,
    pub stops: usize,
    /// Placed at least.
    pub orders: u64,
}

impl Size {
    pub fn schedule(&self, random: &mut Random) -> Vec<Fault> {
        let mut faults = [
            vec![Fault::KillOrders; self.order_kills],
            vec![Fault::KillActivity; self.activity_kills],
            vec![Fault::CrashPostgres; self.postgres_crashes],
            vec![Fault::KillBroker; self.broker_kills],
            vec![Fault::Cut; self.cuts],
            vec![Fault::Pause; self.pauses],
            vec![Fault::Stop; self.stops],
        ]
        .concat();
        for last in (1..faults.len()).rev() {
            faults.swap(last, random.index(last + 1));
        }
        faults
    }
}

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
    /// Kill -9 of a broker, which stays away for a while.
    KillBroker,
    /// The same of two of the three: partitions have no leader, and there is no controller to give them one.
    KillTwoBrokers,
    /// One broker after the other is stopped in order, and started again.
    RestartBrokers,
    /// One instance loses its connections to Postgres, and for a while gets none.
    Cut,
    /// One instance's way to Postgres swallows everything, and nobody is told.
    Vanish,
    /// Postgres becomes a standby for a while, and is promoted.
    SwitchOver,
    /// Somebody keeps a snapshot of the orders for a while, and vacuum cleans nothing.
    HoldSnapshot,
    /// While nobody counts, the group's offset of a partition is set to its end.
    OffsetsAhead,
    /// Instances that count come and go while batches wait for a lock.
    ComeAndGo,
    /// SIGSTOP of one instance, and SIGCONT after a while.
    Pause,
    /// SIGTERM of one instance; another one comes in its place.
    Stop,
}

impl Fault {
    const OTHERS: [Self; 7] = [
        Self::KillTwoBrokers,
        Self::RestartBrokers,
        Self::Vanish,
        Self::SwitchOver,
        Self::HoldSnapshot,
        Self::OffsetsAhead,
        Self::ComeAndGo,
    ];
}

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub order_kills: usize,
    pub activity_kills: usize,
    pub postgres_crashes: usize,
    pub broker_kills: usize,
    /// Of each kind that takes long.
    pub others: usize,
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
            Fault::OTHERS.repeat(self.others),
        ]
        .concat();
        for last in (1..faults.len()).rev() {
            faults.swap(last, random.index(last + 1));
        }
        faults
    }
}

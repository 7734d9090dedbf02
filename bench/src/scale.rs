use std::time::Duration;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Scale {
    pub name: &'static str,
    pub pairs: usize,
    pub connections: usize,
    /// How long orders are placed, by either side.
    pub orders_for: Duration,
    pub backlog: i64,
    pub messages: usize,
    pub orders_per_second: u32,
    pub latency_for: Duration,
    pub load_for: Duration,
    pub small_backlog: i64,
    pub large_backlog: i64,
    /// Beside a large backlog.
    pub large_published: i64,
    /// How long a snapshot is held at full load.
    pub held_for: Duration,
    /// How often each of the peers has its turn.
    pub rounds: usize,
    /// Messages that relays drain.
    pub relayed: i64,
    /// Messages counted by day.
    pub counted: usize,
    /// Of pgbench's own tables: 100,000 accounts each.
    pub branches: u32,
}

impl Scale {
    /// As much as it takes for figures that mean something.
    pub fn full() -> Self {
        Self {
            name: "full",
            pairs: 5,
            connections: 32,
            orders_for: Duration::from_secs(10),
            backlog: 1_000_000,
            messages: 500_000,
            orders_per_second: 500,
            latency_for: Duration::from_secs(10),
            load_for: Duration::from_secs(5),
            small_backlog: 10_000,
            large_backlog: 1_000_000,
            large_published: 5_000_000,
            held_for: Duration::from_secs(120),
            rounds: 2,
            relayed: 200_000,
            counted: 1_000_000,
            branches: 128,
        }
    }

    pub fn quick() -> Self {
        Self {
            name: "quick",
            pairs: 2,
            orders_for: Duration::from_secs(2),
            backlog: 20_000,
            messages: 50_000,
            latency_for: Duration::from_secs(3),
            load_for: Duration::from_secs(2),
            large_backlog: 50_000,
            large_published: 50_000,
            held_for: Duration::from_secs(5),
            rounds: 1,
            relayed: 20_000,
            counted: 50_000,
            branches: 4,
            ..Self::full()
        }
    }
}

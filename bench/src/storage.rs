//! What an order costs Postgres from its placement to its figure, against the release before the outbox was a log.
//!
//! `BASELINE_BIN_DIR` has the binaries of that release: `git worktree add DIR c7d43a1`, and in DIR
//! `cargo build --release -p order-service -p activity-service`; they lie in DIR/target/release.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use testing::{Database, Setup, Topic, wait_until};

use crate::{
    client, cpu,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

/// As the aim has it.
const CONNECTIONS: usize = 64;

/// Its name, its unit, where it stands in a cost, and what it is to be of what it was before.
type Quantity = (&'static str, &'static str, fn(&Cost) -> f64, Option<Aim>);

/// Of one order.
struct Cost {
    /// In microseconds.
    cpu: f64,
    wal: f64,
    kept: f64,
    changed: f64,
    orders_per_second: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let baseline = baseline()?;
    let now = env::current_exe().context("where the program lies")?.with_file_name("");
    let pairs =
        interleaved("storage", scale.pairs, async || run(scale, &now).await, async || run(scale, &baseline).await);
    let runs = &pairs.await?;
    let mut figures = Vec::new();
    let all: [Quantity; 5] = [
        ("Postgres CPU", "us/order", |cost| cost.cpu, Some(Aim::AtMost(0.5))),
        ("WAL", "B/order", |cost| cost.wal, Some(Aim::AtMost(0.45))),
        ("kept", "B/order", |cost| cost.kept, Some(Aim::AtMost(0.45))),
        ("rows updated or deleted", "rows/order", |cost| cost.changed, None),
        ("placed", "orders/s", |cost| cost.orders_per_second, None),
    ];
    for (name, unit, of, aim) in all {
        figures.push(Figure::new(name, unit, runs.runs.iter().map(|(now, _)| of(now))));
        figures.push(Figure::new(format!("{name}, before"), unit, runs.runs.iter().map(|(_, before)| of(before))));
        if let Some(aim) = aim {
            let ratio = Figure::ratio(format!("{name}, to before"), &runs.runs, |pair| of(&pair.0), |pair| of(&pair.1));
            figures.push(ratio.aim(aim));
        }
    }
    Ok(Report {
        name: "storage",
        about: "an order of 2 items at 64 connections, placed, announced and counted; both databases together; jit off",
        figures,
        load: runs.load.clone(),
    })
}

/// Where the binaries of the release before are.
pub fn baseline() -> Result<PathBuf> {
    env::var_os("BASELINE_BIN_DIR").map(PathBuf::from).context("BASELINE_BIN_DIR is not set: see storage.rs")
}

async fn run(scale: &Scale, binaries: &std::path::Path) -> Result<Cost> {
    let (orders, activity) = (Database::empty().await, Database::empty().await);
    let topic = Topic::new(PARTITIONS, &[]).await;
    let setup = |name: &str, database: &Database| {
        Setup::new(binaries.join(name)).set("kafka.brokers", &topic.brokers).set("database.url", database.owner_url())
    };
    let ordering = setup("order-service", &orders).set("kafka.topic", &topic.name);
    let group = format!("bench.{}", uuid::Uuid::now_v7().simple());
    let counting = setup("activity-service", &activity).set("kafka.topics", &topic.name).set("kafka.group_id", group);
    for setup in [&ordering, &counting] {
        let done = setup.clone().run(&["migrate"]).await;
        ensure!(done.status.success(), "migrate: {}", String::from_utf8_lossy(&done.stderr));
    }
    // The release before leaves it on: this is about the tables.
    for database in [&orders, &activity] {
        database
            .execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$")
            .await;
    }
    let (ordering, counting) = (ordering.start().await, counting.start().await);
    let address = client::address(&ordering)?;
    let warmed_up = client::place_for(Duration::from_secs(1), CONNECTIONS, address).await?.orders.len();
    all_counted(&activity, warmed_up).await;
    orders.execute("CHECKPOINT").await;
    let wal = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    let size = "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let (wal_before, size_before) = (orders.number(wal).await, orders.number(size).await + activity.number(size).await);
    let before = cpu::of_postgres(&orders).await?;
    let placed = client::place_for(scale.orders_for, CONNECTIONS, address).await?;
    all_counted(&activity, warmed_up + placed.orders.len()).await;
    let spent = cpu::of_postgres(&orders).await? - before;
    let written = orders.number(wal).await - wal_before;
    let kept = orders.number(size).await + activity.number(size).await - size_before;
    services::stop(ordering).await?;
    services::stop(counting).await?;
    let changed = "SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables
        WHERE relname ~ '^(outbox|published|rejected_messages|processed_messages)'";
    let inserted = "SELECT sum(n_tup_ins)::bigint FROM pg_stat_user_tables WHERE relname = 'orders'";
    let count = (warmed_up + placed.orders.len()) as f64;
    wait_until("the statistics have come", Duration::from_secs(20), async || {
        orders.number(inserted).await as f64 >= count
    })
    .await;
    let changed = orders.number(changed).await + activity.number(changed).await;
    let rows = "SELECT count(*) FROM processed_messages";
    ensure!(activity.number(rows).await as f64 == count, "{count} orders were placed, and not as many are counted");
    topic.delete().await;
    let each = placed.orders.len() as f64;
    let cost = Cost {
        cpu: spent.as_secs_f64() * 1e6 / each,
        wal: written as f64 / each,
        kept: kept as f64 / each,
        changed: changed as f64 / count,
        orders_per_second: placed.per_second(),
    };
    eprintln!(
        "  {:.0} us, {:.0} B of WAL, {:.0} B kept, {:.0} orders/s",
        cost.cpu, cost.wal, cost.kept, cost.orders_per_second
    );
    Ok(cost)
}

async fn all_counted(activity: &Database, count: usize) {
    // The topic is new and without transactions: offsets are a number of messages. The question costs next to
    // nothing, for what it costs is counted as well.
    let counted = "SELECT coalesce(sum(next_offset), 0)::bigint FROM consumer_positions";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    wait_until("everything is counted", Duration::from_secs(120), async || activity.number(counted).await >= count)
        .await;
}

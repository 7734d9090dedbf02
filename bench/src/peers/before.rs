//! Orders placed now, against the release before the outbox was a log (`BASELINE_BIN_DIR`, see storage.rs).

use std::path::Path;

use anyhow::{Result, ensure};
use testing::{Database, Setup, Topic, wait_until};

use crate::{
    announced, client,
    figures::{Aim, Figure, Report},
    latency::percentiles,
    pairs::interleaved,
    scale::Scale,
    services,
    storage::baseline,
    topic::PARTITIONS,
};

struct Placed {
    per_second: f64,
    /// In milliseconds.
    p99: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let baseline = baseline()?;
    let (mut figures, mut load) = (Vec::new(), Vec::new());
    for connections in [8, 32] {
        let scale = Scale { connections, ..scale.clone() };
        let (now, before) = (async || now(&scale).await, async || before(&scale, &baseline).await);
        let pairs = interleaved(&format!("before, {connections}"), scale.rounds, now, before).await?;
        let runs = &pairs.runs;
        let own = |of: fn(&Placed) -> f64| runs.iter().map(move |(own, _)| of(own));
        let other = |of: fn(&Placed) -> f64| runs.iter().map(move |(_, other)| of(other));
        let over = format!("{connections} connections");
        figures.extend([
            Figure::new(format!("order-service, {over}"), "orders/s", own(|run| run.per_second)),
            Figure::new(format!("c7d43a1, {over}"), "orders/s", other(|run| run.per_second)),
            Figure::new(format!("order-service, p99 of the answer, {over}"), "ms", own(|run| run.p99)),
            Figure::new(format!("c7d43a1, p99 of the answer, {over}"), "ms", other(|run| run.p99)),
            Figure::ratio(
                format!("orders/s to c7d43a1, {over}"),
                runs,
                |pair| pair.0.per_second,
                |pair| pair.1.per_second,
            )
            .aim(Aim::AtLeast(1.5)),
            Figure::ratio(format!("p99 to c7d43a1, {over}"), runs, |pair| pair.0.p99, |pair| pair.1.p99)
                .aim(Aim::AtMost(1.0)),
        ]);
        load.extend(pairs.load);
    }
    Ok(Report {
        name: "before",
        about: "orders of 2 items placed and published, by this version and by commit c7d43a1, from before the outbox was a log",
        figures,
        load,
    })
}

async fn now(scale: &Scale) -> Result<Placed> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let service = services::order_service(&database, &topic)?.start().await;
    database.execute("CHECKPOINT").await;
    let placed = client::place_for(scale.orders_for, scale.connections, client::address(&service)?).await?;
    announced::settled(&database).await;
    services::stop(service).await?;
    announced::check(&database, &topic).await?;
    finish("order-service", &database, &topic, placed).await
}

async fn before(scale: &Scale, binaries: &Path) -> Result<Placed> {
    let (database, topic) = (Database::empty().await, Topic::new(PARTITIONS, &[]).await);
    let setup = Setup::new(binaries.join("order-service"))
        .set("database.url", database.owner_url())
        .set("kafka.brokers", &topic.brokers)
        .set("kafka.topic", &topic.name);
    let migrated = setup.run(&["migrate"]).await;
    ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
    let service = setup.start().await;
    database.execute("CHECKPOINT").await;
    let placed = client::place_for(scale.orders_for, scale.connections, client::address(&service)?).await?;
    let left = "SELECT count(*) FROM outbox WHERE state <> 'published'";
    wait_until("everything is published", std::time::Duration::from_secs(60), async || {
        database.number(left).await == 0
    })
    .await;
    services::stop(service).await?;
    announced::check_table(&database, &topic, "outbox").await?;
    finish("c7d43a1", &database, &topic, placed).await
}

async fn finish(name: &str, database: &Database, topic: &Topic, mut placed: client::Placed) -> Result<Placed> {
    topic.delete().await;
    placed.orders.sort_unstable();
    let found: Vec<i64> =
        sqlx::query_scalar("SELECT order_id FROM orders ORDER BY order_id").fetch_all(&database.pool).await?;
    ensure!(found == placed.orders, "{} orders were answered 201, {} are there", placed.orders.len(), found.len());
    let per_second = placed.per_second();
    let [_, p99] = percentiles(placed.answers);
    eprintln!("  {name}: {per_second:.0} orders/s, p99 {p99:.1} ms");
    Ok(Placed { per_second, p99 })
}

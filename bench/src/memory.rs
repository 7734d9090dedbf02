//! Resident memory of each service under load, and of order-service with a small and a large backlog.

use std::time::Duration;

use anyhow::{Result, ensure};
use testing::{Database, Service, Topic, wait_until};
use tokio::time::{Instant, sleep};

use crate::{
    announced, backlog, client,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services::{self, megabytes},
    topic::PARTITIONS,
};

const WITHIN: Duration = Duration::from_secs(300);
/// What chance makes of two equal runs: the allocator keeps more or less of what was freed.
const THE_SAME: f64 = 1.1;

/// In megabytes.
#[derive(Clone, Copy)]
struct Resident {
    /// The median of samples taken while it worked.
    typical: f64,
    /// `VmHWM`: the most it ever had.
    most: f64,
}

struct UnderLoad {
    order_service: Resident,
    activity_service: Resident,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let mut loaded = Vec::new();
    let pairs = interleaved(
        "memory",
        scale.pairs,
        async || {
            loaded.push(under_load(scale).await?);
            with_backlog(scale.large_backlog).await
        },
        async || with_backlog(scale.small_backlog).await,
    )
    .await?;
    let most = |of: fn(&UnderLoad) -> Resident| loaded.iter().map(move |run| of(run).most);
    let typical = |of: fn(&UnderLoad) -> Resident| loaded.iter().map(move |run| of(run).typical);
    let (large, small) = (|pair: &(f64, f64)| pair.0, |pair: &(f64, f64)| pair.1);
    let bound = Aim::AtMost(64.0);
    Ok(Report {
        name: "memory",
        about: "resident memory under POST /orders, and with a backlog of 10,000 and 1,000,000",
        figures: vec![
            Figure::new("order-service under load, most", "MB", most(|run| run.order_service)).aim(bound),
            Figure::new("order-service under load, typical", "MB", typical(|run| run.order_service)),
            Figure::new("activity-service under load, most", "MB", most(|run| run.activity_service)).aim(bound),
            Figure::new("activity-service under load, typical", "MB", typical(|run| run.activity_service)),
            Figure::new("order-service, large backlog, most", "MB", pairs.runs.iter().map(large)).aim(bound),
            Figure::new("order-service, small backlog, most", "MB", pairs.runs.iter().map(small)),
            Figure::ratio("large to small backlog", &pairs.runs, large, small).aim(Aim::AtMost(THE_SAME)),
        ],
        load: pairs.load,
    })
}

/// Orders as fast as they are taken, published and counted at the same time.
async fn under_load(scale: &Scale) -> Result<UnderLoad> {
    let orders = Database::new(&order_service::app::MIGRATIONS).await;
    let activity = Database::new(&activity_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let placing = services::order_service(&orders, &topic)?.start().await;
    let counting = services::activity_service(&activity, &topic)?.start().await;

    let address = client::address(&placing)?;
    let load = client::place_for(scale.load_for, scale.connections, address);
    let (placed, typical) = tokio::join!(load, sampled([&placing, &counting], scale.load_for));
    let count = i64::try_from(placed?.orders.len())?;
    announced::settled(&orders).await;
    wait_until("everything is counted", Duration::from_secs(60), async || {
        activity.number("SELECT coalesce(sum(quantity), 0)::bigint FROM daily_activities").await >= count
    })
    .await;
    let order_service = Resident { most: megabytes(placing.memory().1), typical: typical[0] };
    let activity_service = Resident { most: megabytes(counting.memory().1), typical: typical[1] };
    services::stop(placing).await?;
    services::stop(counting).await?;

    announced::check(&orders, &topic).await?;
    check_counted(&orders, &activity, count).await?;
    topic.delete().await;
    eprintln!(
        "  under load: order-service {:.1} MB, activity-service {:.1} MB",
        order_service.most, activity_service.most
    );
    Ok(UnderLoad { order_service, activity_service })
}

/// The most that order-service had while it drained the backlog, in megabytes.
async fn with_backlog(count: i64) -> Result<f64> {
    let database = backlog::filled(count).await?;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let service = services::order_service(&database, &topic)?.spawn();
    backlog::settled(&database, WITHIN).await?;
    let most = megabytes(service.memory().1);
    services::stop(service).await?;
    announced::check(&database, &topic).await?;
    topic.delete().await;
    eprintln!("  backlog of {count}: {most:.1} MB");
    Ok(most)
}

/// The median of what each service has resident during that time.
async fn sampled(services: [&Service; 2], during: Duration) -> [f64; 2] {
    let end = Instant::now() + during;
    let mut samples = [Vec::new(), Vec::new()];
    while Instant::now() < end {
        for (service, samples) in services.iter().zip(&mut samples) {
            samples.push(service.memory().0);
        }
        sleep(Duration::from_millis(50)).await;
    }
    samples.map(|mut samples| {
        samples.sort_unstable();
        megabytes(samples.get(samples.len() / 2).copied().unwrap_or_default())
    })
}

/// The keys that were counted are those of the outbox.
async fn check_counted(orders: &Database, activity: &Database, count: i64) -> Result<()> {
    let refs = "SELECT message_ref FROM";
    let mut sent: Vec<uuid::Uuid> = sqlx::query_scalar(&format!("{refs} outbox")).fetch_all(&orders.pool).await?;
    let mut counted: Vec<uuid::Uuid> =
        sqlx::query_scalar(&format!("{refs} processed_messages")).fetch_all(&activity.pool).await?;
    sent.sort_unstable();
    counted.sort_unstable();
    ensure!(i64::try_from(sent.len())? == count, "{count} orders were answered 201, {} are there", sent.len());
    ensure!(sent == counted, "{} messages were sent, {} are counted, or not the same ones", sent.len(), counted.len());
    Ok(())
}

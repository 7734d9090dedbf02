//! Several instances on the same servers against one: they share the cores, so that what they lose is what they wait
//! for one another.

use anyhow::{Context, Result};
use testing::{Database, Topic};
use tokio::task::JoinSet;

use crate::{
    announced, client,
    consume::{Messages, by_services},
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

pub async fn measure(scale: &Scale) -> Result<Report> {
    let orders =
        interleaved("instances, orders", scale.pairs, async || place(scale, 2).await, async || place(scale, 1).await)
            .await?;
    let messages = Messages::prepare("instances, messages", scale.messages).await?;
    let count = async |instances| Ok(by_services(&messages, instances).await?.per_second);
    let counted =
        interleaved("instances, messages", scale.pairs, async || count(4).await, async || count(1).await).await?;
    messages.delete().await;
    let (several, one) = (|pair: &(f64, f64)| pair.0, |pair: &(f64, f64)| pair.1);
    let mut load = orders.load;
    load.extend(counted.load);
    Ok(Report {
        name: "instances",
        about: "orders with two order-services and with one; messages counted by four activity-services and by one",
        figures: vec![
            Figure::new("two order-services", "orders/s", orders.runs.iter().map(several)),
            Figure::new("one order-service", "orders/s", orders.runs.iter().map(one)),
            Figure::ratio("two order-services to one", &orders.runs, several, one).aim(Aim::AtLeast(0.95)),
            Figure::new("four activity-services", "msgs/s", counted.runs.iter().map(several)),
            Figure::new("one activity-service", "msgs/s", counted.runs.iter().map(one)),
            Figure::ratio("four activity-services to one", &counted.runs, several, one).aim(Aim::AtLeast(0.95)),
        ],
        load,
    })
}

/// Orders a second through that many services, each with its share of the connections.
async fn place(scale: &Scale, instances: usize) -> Result<f64> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let setup = services::order_service(&database, &topic)?;
    let mut running = Vec::new();
    for _ in 0..instances {
        running.push(setup.start().await);
    }
    database.execute("CHECKPOINT").await;
    let mut placing = JoinSet::new();
    for service in &running {
        let address = client::address(service)?;
        placing.spawn(client::place_for(scale.orders_for, scale.connections / instances, address));
    }
    let mut per_second = 0.0;
    while let Some(placed) = placing.join_next().await {
        per_second += placed.context("a client ended")??.per_second();
    }
    announced::settled(&database).await;
    for service in running {
        services::stop(service).await?;
    }
    announced::check(&database, &topic).await?;
    topic.delete().await;
    eprintln!("  {instances} order-service: {per_second:.0} orders/s");
    Ok(per_second)
}

//! Several instances on the same servers against one: they share the cores, so that what they lose is what they wait
//! for one another.

use std::time::Duration;

use anyhow::{Context, Result};
use testing::{Database, Topic};
use tokio::task::JoinSet;

use crate::{
    announced, client,
    consume::{Messages, by_services},
    cpu,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

/// What an order costs: its name, its unit, and where it stands.
type Cost = (&'static str, &'static str, fn(&Placed) -> f64);

/// Orders with some instances, and what each order took of the cores that all share.
struct Placed {
    per_second: f64,
    /// In microseconds.
    postgres: f64,
    services: f64,
    transactions: f64,
}

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
    let (two, alone) = (|pair: &(Placed, Placed)| pair.0.per_second, |pair: &(Placed, Placed)| pair.1.per_second);
    let mut costs = Vec::new();
    let each: [Cost; 3] = [
        ("Postgres CPU", "us/order", |placed| placed.postgres),
        ("CPU of order-service", "us/order", |placed| placed.services),
        ("transactions", "1/order", |placed| placed.transactions),
    ];
    for (name, unit, of) in each {
        costs.push(Figure::new(format!("{name}, two"), unit, orders.runs.iter().map(|pair| of(&pair.0))));
        costs.push(Figure::new(format!("{name}, one"), unit, orders.runs.iter().map(|pair| of(&pair.1))));
    }
    let mut load = orders.load;
    load.extend(counted.load);
    Ok(Report {
        name: "instances",
        about: "orders with two order-services and with one; messages counted by four activity-services and by one",
        figures: [
            Figure::new("two order-services", "orders/s", orders.runs.iter().map(two)),
            Figure::new("one order-service", "orders/s", orders.runs.iter().map(alone)),
            Figure::ratio("two order-services to one", &orders.runs, two, alone).aim(Aim::AtLeast(0.95)),
        ]
        .into_iter()
        .chain(costs)
        .chain([
            Figure::new("four activity-services", "msgs/s", counted.runs.iter().map(several)),
            Figure::new("one activity-service", "msgs/s", counted.runs.iter().map(one)),
            Figure::ratio("four activity-services to one", &counted.runs, several, one).aim(Aim::AtLeast(0.95)),
        ])
        .collect(),
        load,
    })
}

/// Orders through that many services, each with its share of the connections.
async fn place(scale: &Scale, instances: usize) -> Result<Placed> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let setup = services::order_service(&database, &topic)?;
    let mut running = Vec::new();
    for _ in 0..instances {
        running.push(setup.start().await);
    }
    database.execute("CHECKPOINT").await;
    let transactions = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let spent = async || -> Result<(f64, f64)> {
        let of_services: Result<Duration> = running.iter().map(cpu::of_service).sum();
        Ok((cpu::of_postgres(&database).await?.as_secs_f64(), of_services?.as_secs_f64()))
    };
    let (before, committed) = (spent().await?, database.number(transactions).await);
    let mut placing = JoinSet::new();
    for service in &running {
        let address = client::address(service)?;
        placing.spawn(client::place_for(scale.orders_for, scale.connections / instances, address));
    }
    let (mut per_second, mut count) = (0.0, 0);
    while let Some(placed) = placing.join_next().await {
        let placed = placed.context("a client ended")??;
        per_second += placed.per_second();
        count += placed.orders.len();
    }
    announced::settled(&database).await;
    let after = spent().await?;
    let each = count as f64;
    let placed = Placed {
        per_second,
        postgres: (after.0 - before.0) * 1e6 / each,
        services: (after.1 - before.1) * 1e6 / each,
        transactions: (database.number(transactions).await - committed) as f64 / each,
    };
    for service in running {
        services::stop(service).await?;
    }
    announced::check(&database, &topic).await?;
    topic.delete().await;
    eprintln!(
        "  {instances} order-service: {per_second:.0} orders/s, {:.0} us of Postgres, {:.0} us of order-service, {:.3} transactions an order",
        placed.postgres, placed.services, placed.transactions
    );
    Ok(placed)
}

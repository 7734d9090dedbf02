//! What an order costs with authentication and without: CPU time of the service and of Postgres.

use anyhow::{Result, ensure};
use serde_json::json;
use testing::{Database, Signer, Topic};

use crate::{
    announced,
    client::{self, CUSTOMERS},
    cpu,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services,
    topic::PARTITIONS,
};

/// Microseconds of one order.
struct Cost {
    service: f64,
    postgres: f64,
}

impl Cost {
    fn sum(&self) -> f64 {
        self.service + self.postgres
    }
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let signer = Signer::rs256("bench");
    let with = async || cost(scale, Some(&signer)).await;
    let pairs = interleaved("auth", scale.pairs, with, async || cost(scale, None).await).await?;
    let (on, off) = (|pair: &(Cost, Cost)| pair.0.sum(), |pair: &(Cost, Cost)| pair.1.sum());
    let service = |cost: fn(&(Cost, Cost)) -> &Cost| pairs.runs.iter().map(move |pair| cost(pair).service);
    Ok(Report {
        name: "auth",
        about: "CPU time of the service and of Postgres for each order placed, published and marked; \
            RS256, a token for each of 1000 customers",
        figures: vec![
            Figure::new("with authentication", "us/order", pairs.runs.iter().map(on)),
            Figure::new("without", "us/order", pairs.runs.iter().map(off)),
            Figure::new("the service alone, with", "us/order", service(|pair| &pair.0)),
            Figure::new("the service alone, without", "us/order", service(|pair| &pair.1)),
            Figure::ratio("with to without", &pairs.runs, on, off).aim(Aim::AtMost(1.15)),
        ],
        load: pairs.load,
    })
}

async fn cost(scale: &Scale, signer: Option<&Signer>) -> Result<Cost> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let setup = services::order_service(&database, &topic)?;
    let (setup, tokens) = match signer {
        Some(signer) => (setup.trusting(signer), tokens(signer)),
        None => (setup, Vec::new()),
    };
    let service = setup.start().await;
    database.execute("CHECKPOINT").await;
    let address = client::address(&service)?;
    let (own, server) = (cpu::of_service(&service)?, cpu::of_postgres(&database).await?);
    let placed = client::place_with(&tokens, scale.orders_for, scale.connections, address).await?;
    announced::settled(&database).await;
    let (own, server) = (cpu::of_service(&service)? - own, cpu::of_postgres(&database).await? - server);
    services::stop(service).await?;
    let rows = database.number("SELECT count(*) FROM orders").await;
    ensure!(usize::try_from(rows) == Ok(placed.orders.len()), "{rows} orders, {} answers", placed.orders.len());
    announced::check(&database, &topic).await?;
    topic.delete().await;
    let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / placed.orders.len() as f64;
    let cost = Cost { service: each(own), postgres: each(server) };
    let how = if signer.is_some() { "with" } else { "without" };
    eprintln!("  {how}: {:.0} us/order, the service {:.0} of them", cost.sum(), cost.service);
    Ok(cost)
}

/// Of each customer.
fn tokens(signer: &Signer) -> Vec<String> {
    let token = |number| {
        let customer = format!("C-{number}");
        signer.token(json!({"sub": customer, "customerRef": customer}))
    };
    (0..CUSTOMERS).map(token).collect()
}

//! The lists of orders, newest first: the first page and one far behind it, with many orders in the table.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use testing::{Database, Topic};

use crate::{
    backlog,
    figures::{Aim, Figure, Report},
    scale::Scale,
    services,
    topic::PARTITIONS,
};

const PAGES: usize = 10_000;
/// Of a page, of which the median is told.
const REPEATED: usize = 20;

pub async fn measure(scale: &Scale) -> Result<Report> {
    let database = Database::new(&order_service::app::MIGRATIONS).await;
    let orders = scale.large_published.max((PAGES as i64 + 1) * 10);
    eprintln!("lists: writing {orders} orders");
    backlog::in_parts(&database, FILL, 1..orders + 1).await?;
    database.execute("VACUUM (ANALYZE) orders").await;
    database.execute("CHECKPOINT").await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let service = services::order_service(&database, &topic)?.start().await;
    let mut figures = Vec::new();
    for (name, path) in [("all", "/orders?limit=10"), ("of a customer", "/orders/customer/C-7?limit=10")] {
        let first = format!("{}{path}", service.api());
        let mut last = first.clone();
        let pages = if name == "all" { PAGES } else { PAGES / 10 };
        eprintln!("lists: {pages} pages, {name}");
        for page in 1..pages {
            let (_, next) = fetch(&last).await?;
            let cursor = next.with_context(|| format!("page {page} has no next one"))?;
            last = format!("{first}&cursor={cursor}");
        }
        for (which, url) in [("first page".to_owned(), &first), (format!("page {pages}"), &last)] {
            let mut took = Vec::new();
            for _ in 0..REPEATED {
                let begin = Instant::now();
                let (rows, _) = fetch(url).await?;
                ensure!(rows == 10, "a page has {rows} orders");
                took.push(begin.elapsed().as_secs_f64() * 1000.0);
            }
            took.sort_unstable_by(f64::total_cmp);
            figures.push(Figure::new(format!("{which}, {name}"), "ms", [took[REPEATED / 2]]).aim(Aim::AtMost(50.0)));
        }
    }
    services::stop(service).await?;
    topic.delete().await;
    Ok(Report {
        name: "lists",
        about: "pages of 10 orders over HTTP, of a table of --published orders of 1,000 customers",
        figures,
        load: Vec::new(),
    })
}

/// The number of orders on the page, and the cursor of the next.
async fn fetch(url: &str) -> Result<(usize, Option<String>)> {
    let answer = reqwest::get(url).await.context("the page")?.error_for_status().context("the page")?;
    let next = answer.headers().get("x-next-cursor").map(|cursor| cursor.to_str().map(str::to_owned)).transpose();
    let next = next.context("the cursor is not text")?;
    let orders: Vec<serde_json::Value> = serde_json::from_slice(&answer.bytes().await?).context("the page's JSON")?;
    Ok((orders.len(), next))
}

const FILL: &str = "
    INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at, product_ids, quantities)
    SELECT n, 'C-' || n % 1000, 1, now() - interval '1 day' + n * interval '1 millisecond' / 10,
        ARRAY[md5(n::text)::uuid], ARRAY[1]
    FROM generate_series($1::bigint, $2::bigint - 1) AS n";

//! What an instance costs before anything comes: its program, the time until it wants traffic, its memory at rest.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use testing::{Database, Setup, Topic};
use tokio::{process::Command, time::sleep};

use crate::{
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services::{self, megabytes},
    topic::PARTITIONS,
};

/// After a start the allocator gives back what only that needed.
const AT_REST_AFTER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const WITHIN: Duration = Duration::from_secs(30);

struct Start {
    milliseconds: f64,
    at_rest: f64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let orders = Database::new(&order_service::app::MIGRATIONS).await;
    let activity = Database::new(&activity_service::app::MIGRATIONS).await;
    let topic = Topic::new(PARTITIONS, &[]).await;
    let setups = [services::order_service(&orders, &topic)?, services::activity_service(&activity, &topic)?];
    let [placing, counting] = &setups;
    let pairs =
        interleaved("start", scale.pairs, async || start(placing).await, async || start(counting).await).await?;
    let mut figures = Vec::new();
    for (name, of) in
        [("order-service", (|pair| &pair.0) as fn(&(Start, Start)) -> &Start), ("activity-service", |pair| &pair.1)]
    {
        let ready = pairs.runs.iter().map(|pair| of(pair).milliseconds);
        figures.push(
            Figure::new(format!("{name}, from its start until it is ready"), "ms", ready).aim(Aim::AtMost(150.0)),
        );
        let at_rest = pairs.runs.iter().map(|pair| of(pair).at_rest);
        figures.push(Figure::new(format!("{name}, memory at rest"), "MB", at_rest).aim(Aim::AtMost(20.0)));
        let size = stripped(&services::binary(name)?).await?;
        figures.push(Figure::new(format!("{name}, program without symbols"), "MB", [size]).aim(Aim::AtMost(15.0)));
    }
    topic.delete().await;
    Ok(Report {
        name: "start",
        about: "an instance before anything comes: its program, the time until it is ready, its memory five seconds later",
        figures,
        load: pairs.load,
    })
}

async fn start(setup: &Setup) -> Result<Start> {
    let begun = Instant::now();
    let service = setup.spawn();
    while service.probe("ready").await != Some(200) {
        ensure!(begun.elapsed() < WITHIN, "it is not ready within {WITHIN:?}");
        sleep(LOOK_EVERY).await;
    }
    let milliseconds = begun.elapsed().as_secs_f64() * 1000.0;
    sleep(AT_REST_AFTER).await;
    let at_rest = megabytes(service.memory().0);
    services::stop(service).await?;
    Ok(Start { milliseconds, at_rest })
}

/// Its size in megabytes, as an image has it.
async fn stripped(program: &Path) -> Result<f64> {
    let home = tempfile::tempdir().context("a folder for the program")?;
    let copy = home.path().join("program");
    let done = Command::new("strip").arg("-o").args([&copy, program]).status().await.context("strip, of binutils")?;
    ensure!(done.success(), "strip ended with {done}");
    Ok(megabytes(std::fs::metadata(&copy).context("the program without symbols")?.len()))
}

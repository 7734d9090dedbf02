//! The services as they are shipped: the release binaries beside this one, with their defaults.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, ensure};
use testing::{Database, Service, Setup, Topic};

pub fn order_service(database: &Database, topic: &Topic) -> Result<Setup> {
    Ok(setup("order-service", database, topic)?.set("kafka.topic", &topic.name))
}

/// With a group of its own, so that it reads the topic from its beginning.
pub fn activity_service(database: &Database, topic: &Topic) -> Result<Setup> {
    let group = format!("bench.{}", uuid::Uuid::now_v7().simple());
    Ok(setup("activity-service", database, topic)?.set("kafka.topics", &topic.name).set("kafka.group_id", group))
}

fn setup(name: &str, database: &Database, topic: &Topic) -> Result<Setup> {
    let setup = Setup::new(binary(name)?);
    Ok(setup.set("database.url", database.url()).set("kafka.brokers", &topic.brokers))
}

pub fn binary(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("where the program lies")?;
    let found = own.with_file_name(name);
    ensure!(found.exists(), "{} is not built: run make bench", found.display());
    Ok(found)
}

/// Ends a service in order: one that cannot do that has not done its work.
pub async fn stop(service: Service) -> Result<()> {
    let code = service.stop().await;
    ensure!(code == Some(0), "a service ended with {code:?} instead of 0");
    Ok(())
}

pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

//! pgbench placing orders by the service's own statement, one order a statement.

use anyhow::{Context, Result, ensure};
use testing::Database;
use time::OffsetDateTime;
use tokio::process::Command;

use crate::{client::CUSTOMERS, scale::Scale};

const SOURCE: &str = include_str!("../../order-service/src/placement/statement.rs");

/// What the service sends as arrays, here of one order of two items. pgbench knows numbers only: a
/// reference is made of one that grows, as the time in a UUIDv7 does, and one with 16 digits.
const PARAMETERS: [&str; 19] = [
    "1",
    "ARRAY[(lpad(to_hex(:moment / 1000), 12, '0') || '7000' || :random::text)::uuid]",
    "ARRAY['C-' || :customer::text]",
    "ARRAY[:moment]::bigint[]",
    "ARRAY[NULL::text]",
    "ARRAY[NULL::text]",
    "ARRAY[1]",
    "ARRAY[2]",
    "ARRAY[(:random::text || :random::text)::uuid, (:random::text || :moment::text)::uuid]",
    "ARRAY[1, 2]",
    // Without a key.
    "ARRAY[]::integer[]",
    "ARRAY[]::bytea[]",
    "ARRAY[]::bytea[]",
    "ARRAY[]::bigint[]",
    "604800",
    "1::smallint",
    "'-infinity'::timestamptz",
    // As one that is alone.
    "1::bigint",
    "0::bigint",
];

#[derive(Debug)]
pub struct Done {
    pub orders: i64,
    pub per_second: f64,
}

pub async fn run(database: &Database, scale: &Scale) -> Result<Done> {
    // The identity under which it places.
    database.execute("INSERT INTO instances (instance_id) VALUES (1)").await;
    run_script(database, &database.url(), &script()?, scale).await
}

/// Runs a script, which may count from `:moment` on.
pub async fn run_script(database: &Database, url: &str, text: &str, scale: &Scale) -> Result<Done> {
    let script = std::env::temp_dir().join(format!("bench-{}.sql", std::process::id()));
    std::fs::write(&script, text).context("the script of pgbench")?;
    let micros = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000;
    let file = script.display().to_string();
    let done = timed(database, url, scale, &[&format!("--define=moment={micros}"), "--file", &file]).await;
    std::fs::remove_file(&script).context("the script of pgbench")?;
    done
}

/// Runs what the arguments say at full speed.
pub async fn timed(database: &Database, url: &str, scale: &Scale, arguments: &[&str]) -> Result<Done> {
    let clients = format!("--client={}", scale.connections);
    let time = format!("--time={}", scale.orders_for.as_secs());
    let mut all = vec!["--no-vacuum", "--protocol=prepared", "--jobs=2", &clients, &time];
    all.extend(arguments);
    let text = program(database, url, &all).await?;
    Ok(Done {
        orders: number(&text, "number of transactions actually processed: ")?,
        per_second: number(&text, "tps = ")?,
    })
}

/// What pgbench prints.
pub async fn program(database: &Database, url: &str, arguments: &[&str]) -> Result<String> {
    // The programs of the server that runs: another version's client may not understand its script.
    let folder: String = sqlx::query_scalar("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        .fetch_one(&database.pool)
        .await
        .context("where Postgres's programs are")?;
    let output = Command::new(format!("{folder}/pgbench"))
        .args(arguments)
        .arg(url)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{folder}/pgbench cannot be run"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "pgbench: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text.into_owned())
}

fn number<T: std::str::FromStr>(output: &str, label: &str) -> Result<T> {
    let value = output.lines().find_map(|line| line.strip_prefix(label)?.split([' ', '/']).next()?.parse().ok());
    value.with_context(|| format!("pgbench does not tell \"{label}\""))
}

fn script() -> Result<String> {
    let statement = SOURCE.find("WITH fence AS").and_then(|from| SOURCE[from..].split("\"#").next());
    let statement = statement.context("the placement statement is not where it was")?;
    // An apostrophe in a comment is the beginning of a literal to pgbench.
    let code: Vec<_> = statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let mut statement = code.join("\n");
    for (number, parameter) in PARAMETERS.iter().enumerate().rev() {
        let name = format!("${}", number + 1);
        ensure!(statement.contains(&name), "the placement statement has no parameter {name} any more");
        statement = statement.replace(&name, parameter);
    }
    ensure!(!statement.contains('$'), "the placement statement has more parameters than are known here");
    Ok(format!(
        "\\set moment :moment + 1\n\
         \\set random random(1000000000000000, 9999999999999999)\n\
         \\set customer random(0, {})\n\
         {};\n",
        CUSTOMERS - 1,
        statement.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_the_placement_statement_without_its_parameters() {
        let script = script().unwrap();
        assert!(script.contains("INSERT INTO outbox") && script.contains("INSERT INTO orders"), "{script}");
        assert!(!script.contains("--"), "{script}");
    }
}

//! Runs in pairs, one right after the other, so that whatever else the machine does hits both.

use anyhow::{Context, Result};

#[derive(Debug)]
pub struct Pairs<A, B> {
    pub runs: Vec<(A, B)>,
    /// Before each pair, and after the last.
    pub load: Vec<f64>,
}

/// Runs both `count` times. Who goes first changes with each pair: the second one always meets the
/// disk and the caches as the first one left them.
pub async fn interleaved<A, B>(
    name: &str,
    count: usize,
    mut one: impl AsyncFnMut() -> Result<A>,
    mut other: impl AsyncFnMut() -> Result<B>,
) -> Result<Pairs<A, B>> {
    let mut runs = Vec::with_capacity(count);
    let mut load = Vec::with_capacity(count + 1);
    for pair in 0..count {
        let now = load_average()?;
        eprintln!("{name}: pair {} of {count}, load average {now:.2}", pair + 1);
        load.push(now);
        runs.push(if pair % 2 == 0 {
            let first = one().await?;
            (first, other().await?)
        } else {
            let first = other().await?;
            (one().await?, first)
        });
    }
    load.push(load_average()?);
    Ok(Pairs { runs, load })
}

fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let minute = text.split(' ').next().and_then(|first| first.parse().ok());
    minute.context("/proc/loadavg has no number")
}

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

#[derive(Debug)]
pub struct Rounds<T> {
    /// Of each contender, those of all rounds.
    pub runs: Vec<Vec<T>>,
    /// Before each round, and after the last.
    pub load: Vec<f64>,
}

/// As [`interleaved`], of more than two: each runs once a round, and every other round goes backwards.
pub async fn rounds<C: Copy, T>(
    name: &str,
    count: usize,
    contenders: &[C],
    mut run: impl AsyncFnMut(C) -> Result<T>,
) -> Result<Rounds<T>> {
    let mut runs: Vec<Vec<T>> = contenders.iter().map(|_| Vec::with_capacity(count)).collect();
    let mut load = Vec::with_capacity(count + 1);
    for round in 0..count {
        let now = load_average()?;
        eprintln!("{name}: round {} of {count}, load average {now:.2}", round + 1);
        load.push(now);
        let mut turns: Vec<_> = contenders.iter().copied().zip(0..).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (contender, place) in turns {
            runs[place].push(run(contender).await?);
        }
    }
    load.push(load_average()?);
    Ok(Rounds { runs, load })
}

fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let minute = text.split(' ').next().and_then(|first| first.parse().ok());
    minute.context("/proc/loadavg has no number")
}

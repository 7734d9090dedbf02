//! A mixed campaign: both services several times over, a stream of orders, and one fault after the
//! other, drawn by a seed. At its end the checkers judge from outside, and a file tells the result.

#![expect(clippy::unwrap_used, reason = "what fails here fails the campaign")]

mod complete;
mod faults;
mod report;
mod stack;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use faults::{Random, Size};
use report::Report;
use stack::Stack;
use testing::{Client, order_body};
use tokio::task::JoinSet;
use uuid::Uuid;

const FULL: Size = Size {
    order_kills: 40,
    activity_kills: 22,
    postgres_crashes: 6,
    broker_kills: 4,
    others: 4,
    cuts: 10,
    pauses: 8,
    stops: 6,
    orders: 50_000,
};
const QUICK: Size = Size {
    order_kills: 4,
    activity_kills: 2,
    postgres_crashes: 1,
    broker_kills: 1,
    others: 1,
    cuts: 2,
    pauses: 2,
    stops: 1,
    orders: 3000,
};

/// Callers of the stream, and how long each waits between its orders: some 150 orders/s, which make
/// most of the full size while the faults are on.
const CALLERS: usize = 16;
const PACE: Duration = Duration::from_millis(100);
/// For how long an order under a key is asked for.
const INSISTS_FOR: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let (size, seed) = match arguments() {
        Ok(found) => found,
        Err(problem) => {
            eprintln!("{problem}\nusage: chaos [--quick] [--seed NUMBER]");
            return ExitCode::from(2);
        }
    };
    let quick = if size == QUICK { "--quick " } else { "" };
    println!("seed {seed}: replay with make chaos ARGS='{quick}--seed {seed}'");
    let begun = Instant::now();
    let mut random = Random(seed);
    let mut stack = Stack::start().await;
    let mut report = Report::new(seed);

    let go_on = Arc::new(AtomicBool::new(true));
    let witness = tokio::spawn(stack.witness().ask_while(Arc::clone(&go_on)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (client, go_on) = (stack.client.clone(), Arc::clone(&go_on));
        callers.spawn(async move {
            for turn in caller.. {
                if !go_on.load(Ordering::Relaxed) {
                    break;
                }
                ask(&client, turn).await;
                tokio::time::sleep(PACE).await;
            }
        });
    }
    let schedule = size.schedule(&mut random);
    let of = schedule.len();
    for (number, fault) in (1..).zip(schedule) {
        let recovery = stack.suffer(fault, &mut random).await;
        println!("{:4} s  {number}/{of} {fault:?}: {recovery:?}", begun.elapsed().as_secs());
        report.suffered(fault, recovery);
    }
    go_on.store(false, Ordering::Relaxed);
    callers.join_all().await;
    report.told(witness.await.unwrap());
    let placed = u64::try_from(stack.history.acknowledged().len()).unwrap();
    stack.client.load(size.orders.saturating_sub(placed), CALLERS).await;

    report.memory(stack.come_to_rest().await);
    report.judged(&stack).await;
    let passed = report.write(begun.elapsed());
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An order. Every fourth has a key, and is asked for until it is placed; every fourth is ended, one way or the other.
async fn ask(client: &Client, turn: usize) {
    if turn.is_multiple_of(4) {
        let (key, body) = (format!("K-{}", Uuid::now_v7()), order_body(&format!("C-{}", Uuid::now_v7().simple())));
        let end = Instant::now() + INSISTS_FOR;
        while Instant::now() < end && client.place_under(&key, &body).await.map_or(true, |answer| answer.status != 201)
        {
            tokio::time::sleep(PACE).await;
        }
        return;
    }
    let placed = client.place().await;
    if let (1, Ok(placed)) = (turn % 4, placed)
        && let Some(order_ref) = placed.body["orderRef"].as_str()
    {
        // Of two changes at once one wins; each answer is held against the database.
        let (one, other) = tokio::join!(client.change(order_ref, "complete"), client.change(order_ref, "cancel"));
        drop((one, other));
    }
}

fn arguments() -> Result<(Size, u64), String> {
    let (mut size, mut seed) = (FULL, None);
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quick" => size = QUICK,
            "--seed" => {
                let number = given.next().and_then(|number| number.parse().ok());
                seed = Some(number.ok_or("--seed needs a number")?);
            }
            other => return Err(format!("unknown: {other}")),
        }
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    Ok((size, seed.unwrap_or_else(|| u64::from(now()))))
}

//! What came of it, on paper.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::{
    complete::Told,
    faults::Fault,
    stack::{Recovery, Stack},
};

/// I9: what any instance may take at most.
const MEMORY: u64 = 256 << 20;

pub struct Report {
    seed: u64,
    faults: BTreeMap<Fault, (u64, Recovery)>,
    memory: u64,
    broken: BTreeMap<String, u64>,
    examples: Vec<String>,
    operations: Value,
    told: Told,
}

impl Report {
    pub fn new(seed: u64) -> Self {
        let kinds = ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10"];
        let broken = kinds.into_iter().map(|kind| (kind.to_owned(), 0)).collect();
        Self {
            seed,
            faults: BTreeMap::new(),
            memory: 0,
            broken,
            examples: Vec::new(),
            operations: Value::Null,
            told: Told::default(),
        }
    }

    pub fn suffered(&mut self, fault: Fault, recovery: Recovery) {
        let (count, worst) = self.faults.entry(fault).or_default();
        *count += 1;
        worst.published = worst.published.max(recovery.published);
        worst.counted = worst.counted.max(recovery.counted);
    }

    pub fn memory(&mut self, most: u64) {
        self.memory = most;
    }

    pub fn told(&mut self, told: Told) {
        self.told = told;
    }

    pub async fn judged(&mut self, stack: &Stack) {
        let mut wrong = stack.checker().broken().await;
        // It judges by panicking, with a line for each promise that does not hold.
        let recount = stack.recount.clone();
        if let Err(panicked) = tokio::spawn(async move { recount.judge().await }).await {
            let panicked = panicked.into_panic();
            let text = panicked.downcast_ref::<String>().cloned().unwrap_or_else(|| "I6: judging failed".into());
            let lines = text.lines().filter(|line| line.starts_with('I'));
            wrong.extend(lines.map(str::to_owned));
        }
        if self.memory > MEMORY {
            wrong.push(format!("I9: {} bytes of memory", self.memory));
        }
        wrong.append(&mut self.told.wrong);
        if self.told.moments == 0 {
            wrong.push("I10: nobody was told how far the figures are complete".into());
        }
        for line in wrong {
            let kind = line.split(':').next().unwrap_or(&line).to_owned();
            *self.broken.entry(kind).or_default() += 1;
            if self.examples.len() < 50 {
                self.examples.push(line);
            }
        }
        let (orders, messages) = (stack.orders().await, stack.topic.dump().await.len());
        let twice = i64::try_from(messages).unwrap() - stack.messages().await;
        self.operations = json!({"asked": stack.history.asked().len(), "acknowledged": stack.history.acknowledged().len(),
            "otherAnswers": stack.history.others(), "orders": orders, "ended": stack.history.changed().len(), "messages": messages, "announcedAgain": twice, "toldComplete": self.told.moments, "toldNothing": self.told.unknown});
    }

    /// Writes the file; whether every invariant holds.
    pub fn write(&self, took: Duration) -> bool {
        let passed = self.broken.values().all(|count| *count == 0);
        let faults: BTreeMap<_, _> = self.faults.iter().map(|(fault, (count, worst))| {
            let worst = json!({"publishedSeconds": worst.published.as_secs_f64(), "countedSeconds": worst.counted.as_secs_f64()});
            (format!("{fault:?}"), json!({"count": count, "worstRecovery": worst}))
        }).collect();
        let result = json!({"seed": self.seed, "passed": passed, "seconds": took.as_secs(), "faults": faults,
            "operations": self.operations, "mostMemoryBytes": self.memory, "broken": self.broken, "examples": self.examples});
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/chaos");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{}.json", self.seed));
        let text = serde_json::to_string_pretty(&result).unwrap();
        fs::write(&file, &text).unwrap();
        println!(
            "{text}\n{} after {} s: target/chaos/{}.json",
            if passed { "passed" } else { "FAILED" },
            took.as_secs(),
            self.seed
        );
        passed
    }
}

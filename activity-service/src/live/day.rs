//! A day as it is sent: written once, however many streams it goes to.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use time::Date;

use crate::statistics::ActivitySummary;

#[derive(Debug)]
pub struct LiveDay {
    pub(super) summaries: Vec<ActivitySummary>,
    /// The summaries as JSON, without the brackets round them.
    pub json: String,
    /// Of day and summaries.
    pub digest: [u8; 32],
}

impl LiveDay {
    pub(super) fn new(date: Date, summaries: Vec<ActivitySummary>) -> Self {
        let json = serde_json::to_string(&summaries).expect("texts, numbers and times are JSON");
        let json = json.trim_start_matches('[').trim_end_matches(']').to_owned();
        let digest = Sha256::new().chain_update(date.to_julian_day().to_be_bytes()).chain_update(&json).finalize();
        Self { summaries, json, digest: digest.into() }
    }
}

/// The same, by day.
pub(super) fn by_day(summaries: Vec<ActivitySummary>) -> BTreeMap<Date, Vec<ActivitySummary>> {
    let mut days: BTreeMap<Date, Vec<ActivitySummary>> = BTreeMap::new();
    for one in summaries {
        days.entry(one.activity_date).or_default().push(one);
    }
    days
}

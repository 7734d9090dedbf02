//! What browsers show of activity-service.

use serde_json::Value;
use shared::{
    page_files,
    web::pages::{File, Pages, Settings, Site},
};

const FILES: &[File] = page_files![
    "bars.js",
    "bytes.js",
    "completeness.js",
    "csv.js",
    "days.js",
    "editor.js",
    "figures.css",
    "figures.html",
    "figures.js",
    "gaps.js",
    "hours.js",
    "live.js",
    "operations.html",
    "operations.js",
];

/// None where the settings want none.
pub(super) fn of(settings: &Settings, time_zone: &str, scopes: Option<&Value>) -> Option<Pages> {
    let site = Site {
        service: "activity-service",
        time_zone: Some(time_zone),
        entries: &[("/", "figures.html"), ("/operations", "operations.html")],
        files: FILES,
    };
    Pages::new(settings, site, &super::api(), scopes)
}

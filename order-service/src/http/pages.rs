//! What browsers show of order-service.

use serde_json::Value;
use shared::{
    page_files,
    web::pages::{File, Pages, Settings, Site},
};

const FILES: &[File] = page_files!["operations.html", "operations.js"];

/// None where the settings want none.
pub fn of(settings: &Settings, scopes: Option<&Value>) -> Option<Pages> {
    let site = Site {
        service: "order-service",
        time_zone: None,
        entries: &[("/operations", "operations.html")],
        files: FILES,
    };
    Pages::new(settings, site, &super::api(), scopes)
}

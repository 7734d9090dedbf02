//! How counting is doing, in a few numbers, for the page of operators.

use std::collections::BTreeMap;

use actix_web::{
    http::{Method, StatusCode},
    web::{Data, Json},
};
use serde::Serialize;
use serde_json::json;
use shared::{operators::management::exposition::Exposition, web::http::Operation};
use utoipa::ToSchema;

use crate::metrics;

pub(super) fn operations() -> [Operation; 1] {
    // Every reason is told of, and most of them have nothing.
    let by_reason: BTreeMap<_, _> =
        metrics::REASONS.iter().map(|reason| (*reason, u64::from(*reason == "no_value"))).collect();
    let example = json!({
        "quarantined": 1, "quarantinedByReason": by_reason, "oldestQuarantinedAgeSeconds": 340.5,
        "lagMessages": 0, "openGaps": 0, "freshnessSeconds": 0.8
    });
    [Operation::new(Method::GET, "/admin/overview", "operations", overview)
        .named("overview", "Counting in a few numbers", "Those of the tables are up to `metrics.database_every` old.")
        .answers::<Overview>(StatusCode::OK, "The numbers; null where `metrics.enabled` is false, and those of the tables while the database cannot be asked.", &[], example)]
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Overview {
    /// Different messages that wait in quarantine, of all instances.
    #[schema(required)]
    quarantined: Option<u64>,
    /// The same by reason; 10001 means more than 10000.
    quarantined_by_reason: BTreeMap<&'static str, u64>,
    #[schema(required)]
    oldest_quarantined_age_seconds: Option<f64>,
    /// Messages that are not counted yet, of the partitions of the instance that answers.
    #[schema(required)]
    lag_messages: Option<u64>,
    /// Places where messages were lost before they were counted, and nobody has closed the matter.
    #[schema(required)]
    open_gaps: Option<u64>,
    /// How long ago the moment is up to which the figures are complete; 0 while no source has told anything.
    #[schema(required)]
    freshness_seconds: Option<f64>,
}

/// What a scrape tells, and not asked of the database more often than for scrapes.
async fn overview(exposition: Data<Exposition>) -> Json<Overview> {
    let now = exposition.now().await;
    let of = |reason: &&'static str| now.count_of(&metrics::QUARANTINED, reason).map(|waiting| (*reason, waiting));
    Json(Overview {
        quarantined: now.count(&metrics::QUARANTINED),
        quarantined_by_reason: metrics::REASONS.iter().filter_map(of).collect(),
        oldest_quarantined_age_seconds: now.value(&metrics::OLDEST_QUARANTINED),
        lag_messages: now.count(&metrics::LAG_MESSAGES),
        open_gaps: now.count(&metrics::OPEN_GAPS),
        freshness_seconds: now.value(&metrics::COMPLETE_AGE),
    })
}

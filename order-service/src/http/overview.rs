//! How the outbox is doing, in a few numbers, for the page of operators.

use actix_web::{
    http::{Method, StatusCode},
    web::{Data, Json},
};
use outbox::metrics;
use serde::Serialize;
use serde_json::json;
use shared::{operators::management::exposition::Exposition, web::http::Operation};
use utoipa::ToSchema;

pub(super) fn operations() -> [Operation; 1] {
    let example = json!({
        "unannounced": 12, "oldestUnannouncedAgeSeconds": 0.4, "failed": 0, "queueLength": 12, "queueCapacity": 10_000,
        "outage": false, "lastOrderNumber": 4_711
    });
    [Operation::new(Method::GET, "/admin/overview", "operations", overview)
        .named("overview", "The outbox in a few numbers", "Those of the tables are up to `metrics.database_every` old.")
        .answers::<Overview>(StatusCode::OK, "The numbers; null where `metrics.enabled` is false, and those of the tables while the database cannot be asked.", &[], example)]
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Overview {
    /// Messages to be sent, of all instances.
    #[schema(required)]
    unannounced: Option<u64>,
    #[schema(required)]
    oldest_unannounced_age_seconds: Option<f64>,
    /// Messages at the failure threshold; 100001 means more than 100000.
    #[schema(required)]
    failed: Option<u64>,
    /// Messages in the memory of the instance that answers.
    #[schema(required)]
    queue_length: Option<u64>,
    #[schema(required)]
    queue_capacity: Option<u64>,
    /// Whether Kafka takes no messages from the instance that answers.
    #[schema(required)]
    outage: Option<bool>,
    /// The number of the newest order, of all instances: how fast it grows is about how many orders are placed.
    #[schema(required)]
    last_order_number: Option<u64>,
}

/// What a scrape tells, and not asked of the database more often than for scrapes.
async fn overview(exposition: Data<Exposition>) -> Json<Overview> {
    let now = exposition.now().await;
    Json(Overview {
        unannounced: now.count(&metrics::UNPUBLISHED),
        oldest_unannounced_age_seconds: now.value(&metrics::OLDEST_UNPUBLISHED),
        failed: now.count(&metrics::FAILED),
        queue_length: now.count(&metrics::QUEUE_LENGTH),
        queue_capacity: now.count(&metrics::QUEUE_CAPACITY),
        outage: now.count(&metrics::OUTAGE).map(|outage| outage > 0),
        last_order_number: now.count(&crate::metrics::LAST_ORDER),
    })
}

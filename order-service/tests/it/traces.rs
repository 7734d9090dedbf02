//! Traces by the variables that every program of OpenTelemetry reads.

use testing::{Collector, wait_until};

use crate::world::{World, seconds};

#[tokio::test]
async fn the_standard_variables_say_where_traces_go_and_what_they_tell_of_the_service() {
    let (world, collector) = (World::new().await, Collector::start().await);
    let service = world
        .setup()
        .set("traces.sampling", 0)
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint().trim_end_matches("/v1/traces"))
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
        .variable("OTEL_SERVICE_NAME", "shop-orders")
        .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .variable("OTEL_TRACES_SAMPLER", "always_on")
        // What stays on this machine goes by no proxy.
        .variable("HTTP_PROXY", "http://127.0.0.1:1")
        .start()
        .await;
    world.client(&service).place_one().await;
    wait_until("the request is told", seconds(30), async || {
        collector.spans().iter().any(|span| span.name == "POST /orders")
    })
    .await;
    let resource = collector.spans().swap_remove(0).resource;
    for told in ["shop-orders", "deployment.environment.name", "service.version", "service.instance.id"] {
        assert!(resource.contains(told), "{told}: {resource}");
    }
    assert!(collector.heads().iter().all(|head| head.contains("x-tenant: shop")), "{:?}", collector.heads());
    world.at_rest(seconds(20)).await;
    world.judge().await;
}

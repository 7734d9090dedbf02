//! The document tells what the service does, and the schema of the message what it takes.

use activity_service::{activity, http};
use serde_json::{Value, json};
use testing::{announcement, document, documented::Documented};

use crate::world::{World, client, created};

fn made() -> Value {
    serde_json::to_value(http::api().document()).unwrap()
}

#[test]
fn the_document_suits_generated_clients() {
    document::suits_generated_clients(&made());
}

fn messages() -> Value {
    http::api().messages().unwrap()
}

#[test]
fn the_checked_in_asyncapi_document_is_fresh() {
    document::is_checked_in("asyncapi/activity-service", &format!("{:#}", messages()));
}

#[test]
fn the_checked_in_schema_of_the_message_is_fresh() {
    let schema = activity::channel().json_schema("urn:summarisation:message:v1", "A message of version 1");
    document::is_checked_in("message.schema", &format!("{schema:#}"));
}

#[test]
fn the_checked_in_document_is_fresh() {
    document::is_checked_in("openapi/activity-service", &http::api().document().to_pretty_json().unwrap());
}

#[tokio::test]
async fn the_document_and_its_page_are_served_and_every_path_answers_405_to_all_but_its_methods() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    let client = client(&service);
    assert_eq!(client.get("/openapi.json").await.body, made());
    assert_eq!(client.get("/asyncapi.json").await.body, messages());
    document::the_page_is_complete(&client).await;
    document::missing_things_and_paths_differ(
        &client,
        &made(),
        "/admin/quarantine/0192f0c2-0000-7000-8000-000000000001",
    )
    .await;
    document::every_path_has_its_methods_only(&client, &made()).await;
    world.judge_nothing_counted().await;
}

/// Holds: No published document, example or schema of activity-service differs from what it does.
#[tokio::test]
async fn every_operation_answers_its_example_as_documented() {
    let world = World::new(1).await;
    let unknown = || announcement("ORDER_EATEN", "2026-11-20T12:00:00Z");
    let counted = created();
    world.produce(&[counted.clone(), unknown(), unknown(), counted.clone()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let told = format!(
        "INSERT INTO consumption_gaps (topic, partition, from_offset, to_offset, state) VALUES ('{0}', 0, 900, 902, 'open');
        INSERT INTO sources (source, topic, announced_to, unannounced, failed, discarded, told_offset)
            VALUES ('/order-service', '{0}', now(), 0, 0, 0, 0);
        INSERT INTO source_minutes (source, minute, quantities)
            VALUES ('/order-service', '2026-11-20 12:00Z', '{{\"ORDER_CREATED\": 1}}')",
        world.topic().name
    );
    world.database.execute(&told).await;
    let mut documented = Documented::new(client(&service), made());
    documented.ask("figuresOfDay", "/activities/2026-11-20").await;
    documented.ask("figuresOfRange", "/activities?from=2026-11-20&to=2026-11-20").await;
    documented.ask("figuresByHour", "/activities/hourly?from=2026-11-20&to=2026-11-20").await;
    documented.ask_head("followFigures", "/activities/stream?from=2026-11-20&to=2026-11-20").await;
    documented.ask("completeness", "/completeness").await;
    documented.ask("completenessOfDay", "/activities/2026-11-20/completeness").await;
    documented.ask("findActivity", &format!("/admin/activities/{}", counted.message_ref().unwrap())).await;
    documented.ask("listActivityTypes", "/activity-types").await;
    let waiting = documented.ask("listQuarantine", "/admin/quarantine").await.body;
    let one = format!("/admin/quarantine/{}", waiting[0]["id"].as_str().unwrap());
    documented.ask("findQuarantined", &one).await;
    documented.ask("replayQuarantined", &format!("{one}/replay")).await;
    documented.ask("replayQuarantine", "/admin/quarantine/replay").await;
    documented.ask("discardQuarantine", "/admin/quarantine/discard").await;
    documented.ask("discardQuarantined", &format!("{one}?reason=a%20test")).await;
    let other = format!("/admin/quarantine/{}", waiting[1]["id"].as_str().unwrap());
    documented.ask("correctQuarantined", &format!("{other}/value")).await;
    assert_eq!(documented.ask("registerActivityType", "/activity-types/ORDER_EATEN").await.status, 201);
    assert_eq!(documented.ask("registerActivityType", "/activity-types/ORDER_EATEN").await.status, 200);
    documented.ask("listAudit", "/admin/audit?action=type_renamed").await;
    for id in ["findPause", "pause", "findPause", "resume"] {
        documented.ask(id, "/admin/pause").await;
    }
    documented.ask("overview", "/admin/overview").await;
    documented.ask("listTasks", "/admin/tasks").await;
    documented.ask("listGaps", "/admin/gaps").await;
    documented.all_were_asked();
    world.database.execute("DELETE FROM consumption_gaps").await;
    world.judge().await;
}

#[test]
fn the_schema_of_the_message_draws_the_line_where_the_service_does() {
    let schema = document::message_schema();
    assert!(document::fits(&schema, &schema["examples"][0]));
    let message = || announcement("STOCK_COUNTED", "2026-11-20T12:00:00Z");
    let mut cases = vec![
        (message(), true),
        (message().without_field("orderRef").without_field("orderVersion"), true),
        (message().with_field("other", json!({ "of": "the sender" })), true),
        (message().with_field("activityAt", "2026-11-20T12:00:00.123456+02:00"), true),
        (message().with_field("activityAt", "2026-11-20"), false),
        (message().with_field("activityTypeCode", "stock"), false),
        (message().with_field("activityTypeCode", "A".repeat(64)), true),
        (message().with_field("activityTypeCode", "A".repeat(65)), false),
        (message().with_field("messageRef", "0192f0c2000070008000000000000001"), false),
        (message().with_field("messageRef", uuid::Uuid::nil().to_string()), false),
        (message().with_field("activityAt", "2026-11-20_12:00:00Z"), false),
        (message().with_value("[]"), false),
    ];
    for name in ["messageRef", "activityTypeCode", "activityAt"] {
        cases.push((message().without_field(name), false));
        cases.push((message().with_field(name, json!(null)), false));
        cases.push((message().with_field(name, json!(17)), false));
    }
    for (message, good) in cases {
        let value = message.value.unwrap();
        let parsed = activity::parse(Some(&value), None);
        let fits = document::fits(&schema, &serde_json::from_slice(&value).unwrap());
        assert_eq!((parsed.is_ok(), fits), (good, good), "{}", String::from_utf8_lossy(&value));
    }
}

//! What became of one message.

use serde_json::json;
use uuid::Uuid;

use crate::{
    operator::{Operator, eaten},
    world::{World, created, undated},
};

#[tokio::test]
async fn of_one_message_it_is_told_where_it_was_counted_its_copies_and_its_quarantine() {
    let world = World::new(2).await;
    let (one, of_version_4, waiting) = (created(), undated(), eaten());
    let other = one.clone().with_field("activityAt", "2026-11-19T12:00:00Z");
    let messages = [one.clone(), of_version_4.clone(), waiting.clone(), one.clone(), other];
    world.produce(&messages.map(|message| message.in_partition(1))).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let told = async |message_ref: Uuid| operator.0.get(&format!("/admin/activities/{message_ref}")).await.body;
    let found = told(one.message_ref().unwrap()).await;
    let counted = &found["counted"];
    let topic = &world.topic().name;
    assert_eq!(counted["copies"], json!([{"topic": topic, "partition": 1, "offset": 3}]));
    assert_eq!((&counted["topic"], &counted["partition"], &counted["offset"]), (&json!(topic), &json!(1), &json!(0)));
    assert_eq!(
        (&counted["activityDate"], &counted["activityTypeCode"]),
        (&json!("2026-11-20"), &json!("ORDER_CREATED"))
    );
    assert_eq!(counted["activityAt"], "2026-11-20T12:00:00.123456Z");
    assert!(counted["countedAt"].is_string());
    // Somebody else used the same reference.
    assert_eq!(found["quarantined"], json!(operator.quarantine("reason=conflicting_copy").await));
    assert_eq!(told(of_version_4.message_ref().unwrap()).await["counted"]["offset"], 1);
    let found = told(waiting.message_ref().unwrap()).await;
    assert_eq!(found.get("counted"), None);
    assert_eq!(found["quarantined"], json!(operator.quarantine("reason=unknown_type").await));
    for unknown in [Uuid::now_v7().to_string().as_str(), "x"] {
        assert_eq!(operator.0.get(&format!("/admin/activities/{unknown}")).await.status, 404, "{unknown}");
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

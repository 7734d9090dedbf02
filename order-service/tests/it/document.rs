use order_service::http;
use serde_json::Value;
use testing::document;

use crate::world::World;

fn made() -> String {
    http::api().document().to_pretty_json().unwrap()
}

#[test]
fn the_checked_in_document_is_fresh() {
    document::is_checked_in("order-service", &made());
}

#[tokio::test]
async fn the_document_is_served_and_every_path_answers_405_to_all_but_its_methods() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let served = client.get("/openapi.json").await.body;
    assert_eq!(served, serde_json::from_str::<Value>(&made()).unwrap());
    document::every_path_has_its_methods_only(&client, &served).await;
    world.judge_nothing_placed().await;
}

//! The document tells what the service does, and the schema of the message what it announces.

use order_service::{
    http,
    order::{NewOrder, NewOrderBody},
};
use serde_json::{Value, json};
use testing::{document, documented::Documented, wait_until};

use crate::{
    messages::failed_and_published,
    world::{World, seconds},
};

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
    document::is_checked_in("asyncapi/order-service", &format!("{:#}", messages()));
}

#[test]
fn the_checked_in_document_is_fresh() {
    document::is_checked_in("openapi/order-service", &http::api().document().to_pretty_json().unwrap());
}

#[tokio::test]
async fn the_document_and_its_page_are_served_and_every_path_answers_405_to_all_but_its_methods() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    assert_eq!(client.get("/openapi.json").await.body, made());
    assert_eq!(client.get("/asyncapi.json").await.body, messages());
    document::the_page_is_complete(&client).await;
    document::missing_things_and_paths_differ(&client, &made(), "/orders/OS999999-ORD").await;
    document::every_path_has_its_methods_only(&client, &made()).await;
    world.judge_nothing_placed().await;
}

/// Holds: No published document, example or schema of order-service differs from what it does.
#[tokio::test]
async fn every_operation_answers_its_example_as_documented() {
    let (world, _service, client) = failed_and_published(2, 1).await;
    let mut documented = Documented::new(client.clone(), made());
    let listed = documented.ask("listMessages", "/admin/messages").await.body;
    let failed = listed[0]["messageRef"].as_str().unwrap();
    let lost = listed[1]["messageRef"].as_str().unwrap();
    documented.ask("discardMessage", &format!("/admin/messages/{lost}?reason=a%20test")).await;
    documented.ask("retryMessage", &format!("/admin/messages/{failed}/retry")).await;
    documented.ask("retryMessages", "/admin/messages/retry").await;
    documented.ask("findMessage", &format!("/admin/messages/{failed}")).await;

    let placed = documented.ask("placeOrder", "/orders").await;
    world.history.add(placed.body["orderRef"].as_str().unwrap(), "C-1001");
    let placed = placed.header("location");
    documented.ask("findOrder", placed).await;
    documented.ask("listOrders", "/orders").await;
    documented.ask("listOrdersOfCustomer", "/orders/customer/C-1001").await;
    documented.ask("listInstances", "/admin/instances").await;
    wait_until("it is acknowledged", seconds(20), async || world.count("published").await == 3).await;
    documented.ask("orderTimeline", &format!("/admin{placed}/timeline")).await;
    documented.ask("completeOrder", &format!("{placed}/complete")).await;
    let other = client.place_one().await;
    documented.ask("listAudit", "/admin/audit?action=message_retried").await;
    documented.ask("cancelOrder", &format!("/orders/{other}/cancel")).await;
    documented.ask("eraseCustomer", "/admin/customers/C-1001?reason=a%20test").await;
    for id in ["findPause", "pause", "findPause", "resume"] {
        documented.ask(id, "/admin/pause").await;
    }
    documented.ask("overview", "/admin/overview").await;
    documented.ask("listTasks", "/admin/tasks").await;
    documented.all_were_asked();

    world.at_rest(seconds(30)).await;
    let sent = world.topic.dump().await;
    assert_eq!(sent.len(), 6, "2 left or placed, 2 of the examples, 2 changes");
    let (taken, documented) = (document::message_schema(), messages());
    for message in &sent {
        let value = serde_json::from_slice(message.value.as_ref().unwrap()).unwrap();
        let headers = message
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), json!(std::str::from_utf8(value.as_deref().unwrap()).unwrap())));
        document::fits_its_channel(&documented, &value, &headers.collect());
        assert!(document::fits(&taken, &value), "activity-service does not take {value}");
    }
    let lost = lost.parse().unwrap();
    world.judge_with(|checker| checker.failed([lost]).erased(["C-1001"])).await;
}

#[test]
fn the_schema_of_an_order_draws_the_line_where_the_service_does() {
    let document = made();
    let item = |quantity: i64| json!({"productId": "0192f0c1-7a5e-7000-8000-000000000001", "quantity": quantity});
    let order = |customer: &str, items: Vec<Value>| json!({"customerRef": customer, "orderItems": items});
    let one = |customer: &str| order(customer, vec![item(1)]);
    let mut cases = vec![
        (one("C-1001"), true),
        (one(&"x".repeat(64)), true),
        (one(&"\u{e9}".repeat(64)), true),
        (one("two words"), true),
        (one(""), false),
        (one("  "), false),
        (one(&"x".repeat(65)), false),
        (one("a\u{7}b"), false),
        (one("a\u{85}b"), false),
        (one("a\u{0}b"), false),
        (order("C", vec![]), false),
        (order("C", vec![item(1); 200]), true),
        (order("C", vec![item(1); 201]), false),
        (order("C", vec![json!({"productId": "no-uuid", "quantity": 1})]), false),
        (order("C", vec![json!({"productId": "0192f0c17a5e70008000000000000001", "quantity": 1})]), false),
        (order("C", vec![json!({"quantity": 1})]), false),
        (json!({"customerRef": "C"}), false),
        (json!({"customerRef": "C", "orderItems": [item(1)], "color": "red"}), false),
        (json!({"customerRef": null, "orderItems": [item(1)]}), false),
        (json!([]), false),
    ];
    for (quantity, good) in [(-1, false), (0, false), (1, true), (1_000_000, true), (1_000_001, false)] {
        cases.push((order("C", vec![item(1), item(quantity)]), good));
    }
    for (body, good) in cases {
        let parsed =
            serde_json::from_value::<NewOrderBody>(body.clone()).is_ok_and(|body| NewOrder::parse(&body).is_ok());
        assert_eq!((parsed, Documented::fits(&document, "PlaceOrder", &body)), (good, good), "{body}");
    }
}

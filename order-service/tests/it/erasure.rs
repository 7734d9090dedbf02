//! Customers who are forgotten.

use reqwest::Method;
use serde_json::json;
use testing::{Answer, Client, wait_until};

use crate::world::{World, seconds};

const LEAVING: &str = "C-leaves-1001";

async fn place(world: &World, client: &Client, customer: &str, key: &str) -> Answer {
    let body = json!({"customerRef": customer,
        "orderItems": [{"productId": "0192f0c1-7a5e-7000-8000-000000000001", "quantity": 1}]});
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let answer = client.ask(Method::POST, "/orders", &headers, body.to_string().into_bytes()).await.unwrap();
    if answer.status == 201 {
        world.history.add(answer.body["orderRef"].as_str().unwrap(), customer);
    }
    answer
}

/// In how many rows of the database a text stands, whatever the table.
async fn rows_with(world: &World, text: &str) -> i64 {
    let tables = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&world.database.pool).await.unwrap();
    let mut found = 0;
    for table in tables {
        found += world.database.number(&format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%{text}%'")).await;
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_is_stopped_in_the_middle_has_done_a_part_and_the_next_one_does_the_rest() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    let orders = format!(
        "INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at, product_ids, quantities)
        SELECT nextval('order_number'), '{LEAVING}', 1, now(), ARRAY[gen_random_uuid()], ARRAY[1] FROM generate_series(1, 2500)"
    );
    world.database.execute(&orders).await;
    // Of the last page.
    let mut held = world.database.pool.begin().await.unwrap();
    let last = format!("SELECT FROM orders WHERE customer_ref = '{LEAVING}' ORDER BY order_id DESC LIMIT 1 FOR UPDATE");
    sqlx::query(&last).execute(&mut *held).await.unwrap();
    let path = format!("/admin/customers/{LEAVING}?reason=request+18");
    let erase = async || client.ask(Method::DELETE, &path, &[], Vec::new()).await.unwrap();
    assert_eq!(erase().await.status, 503, "within its time");
    assert_eq!(rows_with(&world, LEAVING).await, 500, "each page is a transaction of its own");
    let audited = "SELECT count(*) FROM audit WHERE action = 'customer_erased'";
    assert_eq!(world.database.number(audited).await, 1, "a part is told as well");

    held.rollback().await.unwrap();
    wait_until("the rest is done", seconds(20), async || {
        let answer = erase().await;
        assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
        answer.status == 200
    })
    .await;
    assert_eq!(rows_with(&world, LEAVING).await, 0);
    let pseudonyms = "SELECT count(DISTINCT customer_ref) FROM orders WHERE customer_ref LIKE 'erased-%'";
    assert_eq!(world.database.number(pseudonyms).await, 2, "nothing tells the first one");
    assert_eq!(world.database.number(audited).await, 2);
    world.database.execute("TRUNCATE orders").await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_placed().await;
}

/// Holds: No customer's reference is in a message, in a key's row or in a line of the log.
#[tokio::test]
async fn a_customer_is_forgotten_everywhere_and_the_orders_stay() {
    let world = World::new().await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for number in 0..5 {
        assert_eq!(place(&world, &client, LEAVING, &format!("key-{number}")).await.status, 201);
    }
    let staying = client.place_one().await;
    let more = format!(
        "INSERT INTO orders (order_id, customer_ref, number_of_items, placed_at, product_ids, quantities)
        SELECT nextval('order_number'), '{LEAVING}', 1, now(), ARRAY[gen_random_uuid()], ARRAY[1] FROM generate_series(1, 2100)"
    );
    world.database.execute(&more).await;
    world.at_rest(seconds(20)).await;
    let fingerprints = "SELECT count(DISTINCT fingerprint) FROM idempotency_keys";
    assert_eq!(world.database.number(fingerprints).await, 1, "of five requests that are the same");
    assert_eq!(rows_with(&world, LEAVING).await, 2105);

    let path = format!("/admin/customers/{LEAVING}");
    let erase =
        async |query: &str| client.ask(Method::DELETE, &format!("{path}{query}"), &[], Vec::new()).await.unwrap();
    assert_eq!(erase("").await.status, 400, "a reason is required");
    assert_eq!(erase("?reason=%20").await.status, 422);
    assert_eq!(rows_with(&world, LEAVING).await, 2105, "nothing was changed");
    let erased = erase("?reason=request+17").await;
    assert_eq!((erased.status, erased.body), (200, json!({"orders": 2105})));
    assert_eq!(rows_with(&world, LEAVING).await, 0);
    assert_eq!(client.list(&format!("/orders/customer/{LEAVING}")).await.len(), 0);
    assert_eq!(world.database.number(fingerprints).await, 5, "nobody can prove a guess by one");
    let others = format!(
        "SELECT count(*) FROM orders WHERE customer_ref NOT LIKE 'erased-%' AND order_ref(order_id) = '{staying}'"
    );
    assert_eq!(world.database.number(&others).await, 1, "others are not touched");
    let pseudonyms = "SELECT count(DISTINCT customer_ref) FROM orders WHERE customer_ref LIKE 'erased-%'";
    assert_eq!(world.database.number(pseudonyms).await, 1, "their orders still belong together");
    let told = service.log().iter().find(|line| line.to_string().contains(LEAVING)).cloned();
    assert_eq!(told, None, "no line of the log has it");
    // A repeat becomes no other order.
    assert_eq!(place(&world, &client, LEAVING, "key-0").await.status, 422);

    let audit = client.list("/admin/audit?action=customer_erased").await;
    assert!(audit.iter().all(|one| one["reason"] == "request 17" && one["actor"] == "anonymous"), "{audit:?}");
    assert!(audit[0]["subject"].as_str().unwrap().starts_with("erased-"));
    assert_eq!(erase("?reason=again").await.body, json!({"orders": 0}));
    let done = world.setup().run(&["customers", "erase", LEAVING, "--reason", "again", "--json"]).await;
    assert_eq!((done.status.code(), String::from_utf8(done.stdout).unwrap()), (Some(0), "{\"orders\":0}\n".into()));
    assert_eq!(world.setup().run(&["customers", "erase", LEAVING]).await.status.code(), Some(2));
    world
        .database
        .execute("DELETE FROM orders o WHERE NOT EXISTS (SELECT FROM outbox m WHERE m.order_id = o.order_id)")
        .await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_with(|checker| checker.erased([LEAVING])).await;
}

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::{World, insertion, seconds};

fn refs(orders: &[Value]) -> Vec<&str> {
    orders.iter().map(|order| order["orderRef"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn whoever_pages_meets_each_order_once_however_many_are_placed_meanwhile() {
    let world = World::new().await;
    // Many at the same instant: only the number tells them apart.
    world.left_behind(30, 900).await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    client.load(30, 8).await;

    for limit in [1, 2, 7, 25, 59, 60, 61, 200] {
        let before = client.list("/orders?limit=200").await;
        let mut met = Vec::new();
        let mut next = Some(format!("/orders?limit={limit}"));
        while let Some(path) = next {
            let page = client.get(&path).await;
            let orders = page.body.as_array().unwrap();
            assert!(orders.len() <= limit);
            assert_eq!(
                page.next().is_some(),
                met.len() + orders.len() < before.len(),
                "a next page only where there is more"
            );
            met.extend_from_slice(orders);
            next = page.next();
            if before.len() < 150 {
                client.place_one().await;
            }
        }
        assert_eq!(refs(&met), refs(&before), "with pages of {limit}");
        assert_eq!(met.iter().map(Value::to_string).collect::<BTreeSet<_>>().len(), met.len());
    }
    let placed_at: Vec<_> =
        client.list("/orders").await.iter().map(|o| o["placedAt"].as_str().unwrap().to_owned()).collect();
    assert!(placed_at.is_sorted_by(|a, b| a >= b), "newest first");
    world.at_rest(seconds(10)).await;
    world.judge().await;
}

#[tokio::test]
async fn a_filter_narrows_the_list_and_its_cursor_fits_no_other_list() {
    let world = World::new().await;
    world.left_behind(9, 900).await;
    world.database.execute("UPDATE orders SET placed_at = placed_at - order_id * interval '1 hour'").await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for order in ["OS000003-ORD", "OS000006-ORD", "OS000009-ORD"] {
        assert_eq!(client.change(order, "cancel").await.unwrap().status, 200);
    }

    let new = client.get("/orders?status=New&limit=2").await;
    assert_eq!(refs(new.body.as_array().unwrap()), ["OS000001-ORD", "OS000002-ORD"]);
    assert_eq!(client.list("/orders?status=New&limit=2").await.len(), 6);
    assert_eq!(client.list("/orders?status=Cancelled").await.len(), 3);
    assert_eq!(client.list("/orders?status=Fulfilled").await.len(), 0);
    let one = client.list("/orders?customerRef=left-4").await;
    assert_eq!(refs(&one), ["OS000004-ORD"]);
    assert_eq!(client.list("/orders/customer/left-4").await, one);
    assert_eq!(client.list("/orders/customer/nobody").await.len(), 0);
    assert_eq!(client.list("/orders/customer/a%00b").await.len(), 0);
    assert!(one[0].get("orderItems").is_none(), "a summary has no lines");

    let at = |n: usize| new_time(&world, n);
    let (third, fifth) = (at(3).await, at(5).await);
    let between = client.list(&format!("/orders?placedFrom={fifth}&placedBefore={third}&limit=1")).await;
    assert_eq!(refs(&between), ["OS000004-ORD", "OS000005-ORD"], "from is included, before is not");

    let cursor = new.header("x-next-cursor");
    assert_eq!(new.next().unwrap().split("cursor=").nth(1), Some(cursor));
    for other in ["", "status=Cancelled&", "status=New&customerRef=left-1&", &format!("status=New&placedFrom={fifth}&")]
    {
        let answer = client.get(&format!("/orders?{other}cursor={cursor}")).await;
        assert_eq!(answer.status, 400, "{other}");
    }
    assert_eq!(client.get(&format!("/orders/customer/left-1?status=New&cursor={cursor}")).await.status, 400);
    assert_eq!(
        client.get(&format!("/orders?status=New&cursor={cursor}")).await.status,
        200,
        "another limit is no other list"
    );
    world.at_rest(seconds(10)).await;
    world.judge().await;
}

async fn new_time(world: &World, number: usize) -> String {
    let format = r#"YYYY-MM-DD"T"HH24:MI:SS.US"Z""#;
    let query =
        format!("SELECT to_char(placed_at AT TIME ZONE 'UTC', '{format}') FROM orders WHERE order_id = {number}");
    sqlx::query_scalar(&query).fetch_one(&world.database.pool).await.unwrap()
}

#[tokio::test]
async fn a_status_that_few_orders_have_is_found_page_by_page_however_many_others_there_are() {
    let world = World::new().await;
    world.database.execute(&insertion(60_000, 900)).await;
    world.database.execute("UPDATE orders SET placed_at = placed_at - order_id * interval '1 second'").await;
    world
        .database
        .execute("INSERT INTO instances (instance_id, ended_at, closed_at, done_at) VALUES (900, now(), now(), now())")
        .await;
    world.database.execute("UPDATE orders SET status = 'Cancelled' WHERE order_id IN (7, 59999)").await;
    let service = world.setup().start().await;
    let client = world.client(&service);
    for list in ["/orders?status=Cancelled", "/orders?status=Cancelled&limit=1", "/orders?status=Pending"] {
        let (mut next, mut found, mut pages) = (Some(list.to_owned()), Vec::new(), 0);
        while let Some(path) = next {
            let page = client.get(&path).await;
            assert_eq!(page.status, 200);
            found.extend(refs(page.body.as_array().unwrap()).into_iter().map(str::to_owned));
            next = page.next();
            pages += 1;
        }
        let expected: &[&str] = if list.contains("Pending") { &[] } else { &["OS000007-ORD", "OS059999-ORD"] };
        assert_eq!(found, expected, "{list}");
        assert!(pages <= 4, "{list}: {pages} pages");
    }
    assert_eq!(service.stop().await, Some(0));
    world.database.execute("TRUNCATE orders, outbox").await;
    world.judge_nothing_placed().await;
}

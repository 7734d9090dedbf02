//! Orders that are old and final leave, where they may.

use sqlx::{Connection, PgConnection};
use testing::wait_until;

use crate::world::{World, insertion, seconds};

/// Orders of a customer, placed so many days ago, without a message.
async fn place(world: &World, customer: &str, status: &str, count: u64, days_ago: u32) {
    let place = format!(
        "INSERT INTO orders (order_id, customer_ref, status, version, number_of_items, placed_at, product_ids, quantities)
        SELECT nextval('order_number'), '{customer}', '{status}', 2, 1, now() - {days_ago} * interval '24 hours',
            ARRAY[gen_random_uuid()], ARRAY[1]
        FROM generate_series(1, {count})"
    );
    world.database.execute(&place).await;
}

async fn left(world: &World) -> Vec<String> {
    let left = "SELECT customer_ref FROM orders GROUP BY 1 ORDER BY 1";
    sqlx::query_scalar(left).fetch_all(&world.database.pool).await.unwrap()
}

/// Holds: No order is removed that is not final, is younger than a day, or has a message in the outbox or among the
/// refused.
#[tokio::test]
async fn final_orders_leave_when_they_are_old_and_no_message_of_them_is_left() {
    let world = World::new().await;
    // These come first, and stay: what stays is no obstacle.
    place(&world, "open", "Placed", 250, 60).await;
    place(&world, "fulfilled", "Fulfilled", 250, 40).await;
    place(&world, "cancelled", "Cancelled", 250, 35).await;
    place(&world, "young", "Fulfilled", 10, 29).await;
    place(&world, "unsettled", "Fulfilled", 2, 50).await;
    // A message of a change long after, one that has failed and whose day is gone, and one of the placement.
    world.database.execute(&insertion(2, 900)).await;
    let messages = "UPDATE outbox SET order_id = o.order_id, order_version = 1 + o.row_number FROM (
            SELECT order_id, (row_number() OVER ()) - 1 AS row_number FROM orders WHERE customer_ref = 'unsettled'
        ) o WHERE outbox.seq = o.row_number;
        DELETE FROM orders WHERE customer_ref LIKE 'left-%'";
    world.database.execute(messages).await;
    place(&world, "failed", "Cancelled", 1, 50).await;
    let failed =
        "INSERT INTO rejected_messages (message_ref, instance, seq, order_id, order_version, activity_type_code,
            activity_at, format, failures, state)
        SELECT gen_random_uuid(), 1, 1, order_id, 2, 'ORDER_CANCELLED', now(), 1, 10, 'failed' FROM orders
        WHERE customer_ref = 'failed'";
    world.database.execute(failed).await;
    let messages = "SELECT count(*) FROM outbox_messages";
    let before = world.database.number(messages).await;
    assert_eq!(before, 3);

    // Not without the setting.
    let setup = world.setup().set("retention.every", "50ms").set("retention.pause", "1ms");
    let off = setup.clone().start().await;
    wait_until("it has purged", seconds(20), async || {
        off.health().await["components"]["retention"]["state"] == "working"
    })
    .await;
    assert_eq!(off.stop().await, Some(0));
    assert_eq!(left(&world).await.len(), 6);

    let service = setup.set("retention.orders", "30d").set("retention.batch_size", 100).start().await;
    let stays = ["failed", "open", "unsettled", "young"];
    wait_until("the old ones are gone", seconds(20), async || left(&world).await == stays).await;
    wait_until("it is told", seconds(20), async || service.metrics().await.sum("orders_purged_total") == 500.0).await;
    let more = "SELECT count(*) FROM orders WHERE customer_ref IN ('open', 'unsettled')";
    assert_eq!(world.database.number(more).await, 252);
    assert_eq!(world.database.number(messages).await, before, "every message is there");
    let counts = "SELECT count(*) FROM outbox_messages WHERE activity_type_code = 'ORDER_CREATED'";
    assert_eq!(world.database.number(counts).await, 2, "what is counted of a minute does not change");
    assert!(service.has_logged("purged old orders"));
    assert_eq!(service.stop().await, Some(0));

    // The role of the service lets no younger one go, nor anybody else any.
    let mut role = PgConnection::connect(&world.database.url()).await.unwrap();
    let young = "SELECT removed FROM purge_orders('1 hour', '-infinity', 0, 1000)";
    assert!(sqlx::query(young).execute(&mut role).await.unwrap_err().to_string().contains("older than a day"));
    let everybodys = "SELECT count(*) FROM pg_proc WHERE proname = 'purge_orders' AND proacl::text ~ '[{,]='";
    assert_eq!(world.database.number(everybodys).await, 0);
    world.database.execute("TRUNCATE orders, outbox, rejected_messages").await;
    world.judge_nothing_placed().await;
}

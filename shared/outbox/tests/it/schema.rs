use std::collections::{BTreeMap, BTreeSet};

use sqlx::migrate::Migrator;
use testing::{Database, describe};

static OUTBOX: Migrator = sqlx::migrate!("./migrations");
static ORDERS: Migrator = sqlx::migrate!("../../migrations/orders");

/// What order-service has beside the outbox, and the indexes by which it finds the messages of an order.
const OF_ORDERS: [&str; 10] = [
    "orders",
    "cell",
    "order_number",
    "idempotency_keys",
    "audit",
    "outbox_messages",
    "rejected_messages_order",
    "order_id",
    "outbox_placements",
    "outbox_changes",
];
const FUNCTIONS_OF_ORDERS: [&str; 4] = ["announcement", "messages_of_order", "order_ref", "purge_orders"];

/// Each function: what it does, with whose rights, and whether everybody may call it.
async fn functions(database: &Database) -> BTreeMap<String, String> {
    let functions = "SELECT proname::text,
            pg_get_functiondef(oid) || E'\n' || has_function_privilege('public', oid, 'EXECUTE')
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace";
    let rows: Vec<(String, String)> = sqlx::query_as(functions).fetch_all(&database.pool).await.unwrap();
    rows.into_iter().collect()
}

#[tokio::test]
async fn a_service_that_begins_with_the_outbox_has_the_tables_that_order_service_came_to() {
    let (outbox, orders) = (Database::new(&OUTBOX).await, Database::new(&ORDERS).await);
    let (of_outbox, mut of_orders) = (functions(&outbox).await, functions(&orders).await);
    let texts = of_orders.values().flat_map(|text| text.lines()).map(str::to_owned).collect::<BTreeSet<_>>();
    for own in FUNCTIONS_OF_ORDERS {
        assert!(of_orders.remove(own).is_some(), "{own}");
    }
    assert_eq!(of_outbox, of_orders);
    let lines = async |database: &Database| {
        let schema = describe(database).await;
        let lines = schema.lines().filter(|line| !texts.contains(*line)).map(str::to_owned);
        lines.collect::<BTreeSet<_>>()
    };
    let (alone, all) = (lines(&outbox).await, lines(&orders).await);
    assert!(alone.iter().any(|line| line.starts_with("column rejected_messages fields")), "{alone:#?}");
    let missing: Vec<_> = alone.difference(&all).collect();
    assert!(missing.is_empty(), "not in migrations/orders: {missing:#?}");
    let more: Vec<_> = all.difference(&alone).filter(|line| !OF_ORDERS.iter().any(|own| line.contains(own))).collect();
    assert!(more.is_empty(), "not in shared/outbox/migrations: {more:#?}");
}

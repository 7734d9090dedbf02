//! What is kept of what operators do.

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testing::wait_until;

use crate::{
    operator::{EATEN, Operator, eaten},
    world::{World, created, seconds},
};

fn summary(entry: &Value) -> [&str; 5] {
    ["action", "actor", "via", "subject", "reason"].map(|name| entry[name].as_str().unwrap_or("-"))
}

/// Holds: No operator changes a type or the quarantine without a row in the audit, and no service can change or
/// delete such a row.
#[tokio::test]
async fn everything_that_is_decided_leaves_a_row_in_the_audit() {
    let world = World::new(1).await;
    world.produce(&[eaten(), created().with_value("not json"), created()]).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let (waits, bad) = (operator.id_at(0, "waiting").await, operator.id_at(1, "waiting").await);
    // Tried, and still waiting: nothing was decided.
    assert_eq!(operator.replay(None, &json!({})).await.status, 200);
    assert_eq!(operator.register(EATEN, "Order Eaten").await.status, 201);
    assert_eq!(operator.register(EATEN, "Eaten").await.status, 200);
    assert_eq!(operator.discard(&bad, "?reason=test+data").await.status, 200);
    assert_eq!(operator.discard(&bad, "?reason=again").await.status, 409);
    let gap =
        "INSERT INTO consumption_gaps (topic, partition, from_offset, to_offset, state) VALUES ('t', 0, 1, 2, 'open')";
    world.database.execute(gap).await;
    let id = world.database.number("SELECT max(gap_id) FROM consumption_gaps").await.to_string();
    let close = ["gaps", "close", &id, "--reason", "sent again", "--actor", "anna"];
    assert_eq!(world.setup().run(&close).await.status.code(), Some(0));
    assert_eq!(world.setup().run(&close).await.status.code(), Some(1), "it is closed");
    let rename = ["calendar", "rename", "UTC", "--actor", "anna"];
    assert_eq!(world.setup().run(&rename).await.status.code(), Some(0));
    let level = reqwest::Client::new().put(format!("{}/log-level", service.management()));
    assert_eq!(level.json(&json!({"level": "debug"})).send().await.unwrap().status(), 200);
    wait_until("all is there", seconds(10), async || operator.0.list("/admin/audit").await.len() == 7).await;

    let all = operator.0.list("/admin/audit?limit=2").await;
    let expected = [
        ["log_level_changed", "127.0.0.1", "management", "debug", "-"],
        ["calendar_renamed", "anna", "command", "UTC", "-"],
        ["gap_closed", "anna", "command", &id, "sent again"],
        ["quarantine_discarded", "anonymous", "api", &bad, "test data"],
        ["type_renamed", "anonymous", "api", EATEN, "-"],
        ["quarantine_replayed", "anonymous", "api", &waits, "its type was registered"],
        ["type_registered", "anonymous", "api", EATEN, "-"],
    ];
    assert_eq!(all.iter().map(summary).collect::<Vec<_>>(), expected);
    assert!(all[3..].iter().all(|one| one["requestId"].is_string()), "{all:?}");
    assert_eq!((&all[1]["databaseRole"], all[1]["osUser"].is_string()), (&json!("test_service"), true));
    for (query, count) in [("action=type_renamed", 1), ("actor=anna", 2), ("actor=anna&action=type_renamed", 0)] {
        assert_eq!(operator.0.list(&format!("/admin/audit?{query}")).await.len(), count, "{query}");
    }

    let mut role = PgConnection::connect(&world.database.url()).await.unwrap();
    for statement in ["UPDATE audit SET actor = 'another'", "DELETE FROM audit"] {
        let refused = sqlx::raw_sql(statement).execute(&mut role).await.expect_err(statement);
        assert_eq!(refused.into_database_error().unwrap().code().as_deref(), Some("42501"), "{statement}");
    }
    world.database.execute("DELETE FROM consumption_gaps").await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_level_that_is_changed_while_postgres_is_away_is_audited_when_it_is_back() {
    let world = World::new(1).await;
    world.produce(&[created()]).await;
    let proxy = testing::Proxy::before(world.database.address()).await;
    let service = world.setup().set("database.url", world.database.url_through(proxy.port())).start().await;
    world.at_rest().await;
    proxy.hold();
    let level = reqwest::Client::new().put(format!("{}/log-level", service.management()));
    assert_eq!(level.json(&json!({"level": "warn"})).send().await.unwrap().status(), 200);
    wait_until("it is logged", seconds(10), async || service.has_logged("the log level was changed")).await;
    assert_eq!(world.database.number("SELECT count(*) FROM audit").await, 0);
    proxy.cut();
    proxy.pass();
    let audited = "SELECT count(*) FROM audit WHERE action = 'log_level_changed' AND subject = 'warn'";
    wait_until("it is audited", seconds(30), async || world.database.number(audited).await == 1).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

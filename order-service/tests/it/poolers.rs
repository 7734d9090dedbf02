//! What a pooler takes away is found at the start.

use std::collections::BTreeSet;

use sqlx::{Connection, PgConnection, Row, raw_sql};
use testing::{PgBouncer, Pooler, Setup};

use crate::world::{World, seconds};

const OF_ROLE: [&str; 6] = [
    "statement_timeout = '9s'",
    "idle_in_transaction_session_timeout = '9s'",
    "plan_cache_mode = force_generic_plan",
    "jit = off",
    "default_transaction_isolation = 'read committed'",
    "synchronous_commit = on",
];

async fn refused(setup: &Setup) -> String {
    let mut service = setup.spawn();
    assert_eq!(service.ended(seconds(20)).await.code(), Some(2));
    let lines: Vec<_> = service.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0]["message"].as_str().unwrap().to_owned()
}

/// The values of a setting that the sessions have which a pooler lends: so many at once that each has its turn.
async fn values(url: &str, setting: &str) -> BTreeSet<String> {
    let (mut clients, mut values) = (Vec::new(), BTreeSet::new());
    for _ in 0..30 {
        let mut client = PgConnection::connect(url).await.unwrap();
        raw_sql("BEGIN").execute(&mut client).await.unwrap();
        let shown = raw_sql(&format!("SHOW {setting}")).fetch_one(&mut client).await.unwrap();
        values.insert(shown.get(0));
        clients.push(client);
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_through_a_pooler_by_transaction_is_refused_at_the_start() {
    let world = World::new().await;
    let pooler = Pooler::before(world.database.address()).await;
    let told = refused(&world.setup().set("database.session_url", world.database.url_through(pooler.port()))).await;
    assert!(told.starts_with("database.session_url: leads to a pooler that lends a session"), "{told}");
    assert_eq!(world.database.number("SELECT count(*) FROM instances").await, 0, "it has taken no identity");
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_does_not_keep_prepared_statements_is_refused_at_the_start() {
    let world = World::new().await;
    let pooler = Pooler::before(world.database.address()).await;
    let through = world.setup().set("database.url", world.database.url_through(pooler.port()));
    let told = refused(&through.set("database.session_url", world.database.url())).await;
    assert!(told.starts_with("database.url: leads to a pooler that does not keep prepared statements"), "{told}");
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_leaves_nothing_on_a_session_that_a_pooler_lends() {
    let world = World::new().await;
    let pooler = Pooler::before(world.database.address()).await;
    let through = world.database.url_through(pooler.port());
    let done = world.setup().set("database.url", &through).run(&["messages", "list"]).await;
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert!(told.starts_with("database.url: leads to a pooler that does not keep prepared statements"), "{told}");
    let mut next = PgConnection::connect(&through).await.unwrap();
    let shown = raw_sql("SHOW plan_cache_mode").fetch_one(&mut next).await.unwrap();
    assert_eq!(shown.get::<String, _>(0), "auto");
    world.judge_nothing_placed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pgbouncer_it_takes_orders_or_is_refused_at_the_start() {
    let world = World::new().await;
    let (direct, setup) = (world.database.url(), world.setup());
    let through = |pooler: &PgBouncer| world.database.url_through(pooler.port());
    let by_transaction = PgBouncer::before(&world.database, "transaction", 0).await;
    let told = refused(&setup.clone().set("database.session_url", through(&by_transaction))).await;
    assert!(told.starts_with("database.session_url: leads to a pooler that lends a session"), "{told}");
    let told =
        refused(&setup.clone().set("database.url", through(&by_transaction)).set("database.session_url", &direct))
            .await;
    assert!(told.starts_with("database.url: leads to a pooler that does not keep prepared statements"), "{told}");
    let mut fit = vec![("session", 0)];
    if PgBouncer::keeps_prepared_statements() {
        // Where the session goes is forgotten.
        let forgetful = PgBouncer::before(&world.database, "transaction", 200).await;
        let told = refused(&setup.clone().set("database.url", through(&forgetful))).await;
        assert!(told.starts_with("database.session_url: leads to a pooler that lends a session"), "{told}");
        let told =
            refused(&setup.clone().set("database.url", through(&forgetful)).set("database.session_url", &direct)).await;
        assert!(told.contains("ALTER ROLE ... SET jit = 'off'"), "{told}");
        // As docs/operations.md says, but for what tells them from what the service would set.
        world.database.set(&OF_ROLE).await;
        fit.push(("transaction", 200));
    }
    for (mode, statements) in fit {
        let pooler = PgBouncer::before(&world.database, mode, statements).await;
        let setup = setup.clone().set("database.url", through(&pooler)).set("database.session_url", &direct);
        let service = setup.start().await;
        world.client(&service).load(200, 8).await;
        world.at_rest(seconds(10)).await;
        assert_eq!(service.stop().await, Some(0));
        if mode == "transaction" {
            assert_eq!(values(&through(&pooler), "statement_timeout").await, ["9s".to_owned()].into());
        }
    }
    world.judge().await;
}

//! What a pooler takes away is found at the start.

use testing::{PgBouncer, Pooler, Setup};

use crate::world::{World, seconds};

async fn refused(setup: &Setup) -> String {
    let mut service = setup.spawn();
    assert_eq!(service.ended(seconds(20)).await.code(), Some(2));
    let lines: Vec<_> = service.log().into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0]["message"].as_str().unwrap().to_owned()
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
        fit.push(("transaction", 200));
    }
    for (mode, statements) in fit {
        let pooler = PgBouncer::before(&world.database, mode, statements).await;
        let setup = setup.clone().set("database.url", through(&pooler)).set("database.session_url", &direct);
        let service = setup.start().await;
        world.client(&service).load(200, 8).await;
        world.at_rest(seconds(10)).await;
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge().await;
}

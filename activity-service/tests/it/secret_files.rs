//! Secrets in files that change while the service runs.

use testing::{Kafka, Postgres, wait_until};

use crate::world::{World, many, seconds};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_has_changed_needs_no_restart() {
    let postgres = Postgres::start().await;
    let world = World::with_postgres(&postgres, 1).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("url");
    std::fs::write(&file, world.database.url_with_password("first").await).unwrap();
    postgres.ask_for_password("test_service").await;
    // Empty is unset.
    let setup = world.setup().set("database.url", "").set("database.url_file", file.display());
    let service = setup.start().await;
    std::fs::write(&file, world.database.url_with_password("second").await).unwrap();
    world.database.end_sessions().await;
    world.produce(&many(100)).await;
    world.at_rest().await;
    wait_until("it is ready", seconds(20), async || service.probe("ready").await == Some(200)).await;
    assert_eq!((world.counted().await, service.stop().await), (100, Some(0)));
    world.judge().await;
}

/// The file is the first to have it, and the broker the second: each order is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_kafka_that_has_changed_needs_no_restart() {
    let mut kafka = Kafka::asking_for_password("first").await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create(2, &[]).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    std::fs::write(&file, "first").unwrap();
    let service = kafka.with_password_file(world.setup(), &file).start().await;
    world.produce(&many(50)).await;
    world.at_rest().await;

    std::fs::write(&file, "second").unwrap();
    world.produce(&many(50)).await;
    world.has_counted(100, seconds(20)).await;
    kafka.stop().await;
    kafka.change_password("second");
    kafka.start_again().await;
    world.produce(&many(50)).await;
    world.has_counted(150, seconds(40)).await;
    assert!(service.has_logged("a broker refuses"));
    for component in ["consumer", "topics", "lag"] {
        wait_until(component, seconds(30), async || {
            service.health().await["components"][component]["state"] == "working"
        })
        .await;
    }
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

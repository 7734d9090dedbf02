//! Rights that a broker checks, changed under a running service.

use testing::{Kafka, Right, Service, wait_until};

use crate::world::{World, seconds};

const TAKES_NOTHING: &str = "kafka takes nothing";

/// Until the publisher waits, and says for what.
async fn is_told(service: &Service) {
    wait_until("it is told", seconds(30), async || {
        let publisher = &service.health().await["components"]["publisher"];
        publisher["state"] == "waiting" && publisher["lastError"].as_str().is_some_and(|why| why.contains("authoriz"))
    })
    .await;
    assert!(service.has_logged(TAKES_NOTHING));
}

/// Holds: No outage counts against a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_to_write_taken_away_and_given_back_costs_no_message_and_puts_none_before_another() {
    let kafka = Kafka::asking_for_password("first").await;
    let world = World::with_kafka(&kafka).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    std::fs::write(&file, "first").unwrap();
    // The first rejection would fail a message.
    let setup = world.setup().set("publisher.max_failures", 1);
    let service = kafka.with_password_file(setup, &file).start().await;
    let client = world.client(&service);
    client.load(20, 4).await;
    world.at_rest(seconds(20)).await;

    // One message on its way, and nothing else.
    kafka.take_away(Right::Write, &world.topic.name).await;
    client.place_one().await;
    is_told(&service).await;
    assert_eq!((world.count("unpublished").await, world.count("failed").await), (1, 0));
    kafka.give_back(Right::Write, &world.topic.name).await;
    world.at_rest(seconds(30)).await;

    // Many, for as long as it lasts.
    client
        .load_during(8, async {
            client.load(200, 4).await;
            kafka.take_away(Right::Write, &world.topic.name).await;
            is_told(&service).await;
            client.load(200, 4).await;
            kafka.give_back(Right::Write, &world.topic.name).await;
            wait_until("it is over", seconds(30), async || {
                service.health().await["components"]["publisher"]["state"] == "working"
            })
            .await;
        })
        .await;
    assert_eq!(world.history.others(), [].into(), "every order is accepted");
    world.at_rest(seconds(30)).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

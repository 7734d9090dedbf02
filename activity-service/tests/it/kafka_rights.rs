//! Rights and quotas that a broker keeps, changed under a running service.

use testing::{Kafka, Right, Service, Topic, wait_until};

use crate::world::{World, many, seconds};

/// Where a user `service` needs a password, which stands in a file here.
async fn guarded() -> (Kafka, World, tempfile::TempDir) {
    let kafka = Kafka::asking_for_password("first").await;
    let world = World::with_kafka(&kafka).await;
    world.topic().create(2, &[]).await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("password"), "first").unwrap();
    (kafka, world, home)
}

/// Until a component is in trouble that names this.
async fn is_told(service: &Service, component: &str, what: &str) {
    wait_until("it is told", seconds(40), async || {
        let told = &service.health().await["components"][component];
        told["state"] != "working" && told["lastError"].as_str().is_some_and(|why| why.contains(what))
    })
    .await;
}

async fn works(service: &Service, component: &str) {
    wait_until("it works", seconds(30), async || service.health().await["components"][component]["state"] == "working")
        .await;
}

/// Holds: A consumer that may not read is not told to be working.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_to_read_taken_away_is_told_and_given_back_costs_no_message() {
    let (kafka, world, home) = guarded().await;
    let service = kafka.with_password_file(world.setup(), &home.path().join("password")).start().await;
    world.produce(&many(50)).await;
    world.has_counted(50, seconds(20)).await;

    // It may still describe the topic: its metadata look as ever.
    kafka.take_away(Right::Read, &world.topic().name).await;
    is_told(&service, "consumer", "authoriz").await;
    world.produce(&many(50)).await;
    wait_until("the messages that wait are told", seconds(30), async || {
        service.metrics().await.sum("activity_consumer_lag_messages") == 50.0
    })
    .await;
    assert_eq!(world.counted().await, 50);

    kafka.give_back(Right::Read, &world.topic().name).await;
    world.has_counted(100, seconds(30)).await;
    works(&service, "consumer").await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Its metadata look as ever, and where the group left off is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_to_read_that_is_missing_at_the_start_is_told_with_the_reason() {
    let (kafka, world, home) = guarded().await;
    let setup = kafka.with_password_file(world.setup(), &home.path().join("password"));
    let on_both = || many(50).into_iter().zip((0..2).cycle()).map(|(one, at)| one.in_partition(at)).collect::<Vec<_>>();
    let service = setup.start().await;
    world.produce(&on_both()).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));

    kafka.take_away(Right::Read, &world.topic().name).await;
    let service = setup.start().await;
    is_told(&service, "continuity", "authoriz").await;
    wait_until("it is logged", seconds(5), async || service.has_logged("cannot find out where to begin reading")).await;
    is_told(&service, "consumer", "where reading begins").await;
    world.produce(&on_both()).await;
    // A member comes: what it has is assigned anew.
    let other = setup.start().await;
    is_told(&other, "continuity", "authoriz").await;
    for one in [&service, &other] {
        is_told(one, "consumer", "where reading begins").await;
    }

    kafka.give_back(Right::Read, &world.topic().name).await;
    world.has_counted(100, seconds(30)).await;
    for component in ["continuity", "consumer"] {
        works(&service, component).await;
    }
    assert_eq!((service.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

/// What may be known of the others is told all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_settings_it_may_not_know_hides_none_that_is_set_wrong() {
    let (kafka, mut world, home) = guarded().await;
    let wrong = Topic::unborn_on(&kafka);
    wrong.create(1, &[("retention.ms", "60000")]).await;
    world.topics.push(wrong.clone());
    kafka.take_away(Right::DescribeConfigs, &world.topic().name).await;
    let service = kafka.with_password_file(world.setup(), &home.path().join("password")).start().await;
    is_told(&service, "topics", &format!("{} is set wrong: short retention", wrong.name)).await;
    wait_until("it is logged", seconds(5), async || service.has_logged("the topics' settings cannot be checked")).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge_nothing_counted().await;
}

/// The broker says it once, and the messages of the other topic look like health.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_topics_that_may_not_be_read_is_named_for_as_long_as_its_messages_wait() {
    let (kafka, mut world, home) = guarded().await;
    let other = Topic::unborn_on(&kafka);
    other.create(2, &[]).await;
    world.topics.push(other.clone());
    let setup = world.setup().set("metrics.lag_every", "500ms");
    let service = kafka.with_password_file(setup, &home.path().join("password")).start().await;
    world.produce(&many(50)).await;
    other.produce(&many(50)).await;
    world.has_counted(100, seconds(20)).await;

    kafka.take_away(Right::Read, &other.name).await;
    is_told(&service, "consumer", "authoriz").await;
    other.produce(&many(50)).await;
    world.produce(&many(50)).await;
    world.has_counted(150, seconds(20)).await;
    is_told(&service, "lag", &other.name).await;
    assert_eq!(world.counted().await, 150);

    kafka.give_back(Right::Read, &other.name).await;
    world.has_counted(200, seconds(30)).await;
    works(&service, "lag").await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_holds_reading_back_is_told_and_what_waits_is_lag() {
    let (kafka, world, home) = guarded().await;
    let setup = world.setup().set("metrics.lag_every", "500ms");
    let service = kafka.with_password_file(setup, &home.path().join("password")).start().await;
    world.produce(&many(50)).await;
    world.has_counted(50, seconds(20)).await;

    kafka.limit_reading(Some(2000.0)).await;
    let lag = async || service.metrics().await.sum("activity_consumer_lag_messages");
    // Each reads more than is granted until the broker makes it wait.
    for _ in 0..20 {
        world.produce(&many(100)).await;
    }
    wait_until("it is told", seconds(40), async || {
        service.metrics().await.sum("activity_kafka_throttle_seconds") > 0.0
            && service.has_logged("kafka throttles this service: a quota makes its requests wait")
    })
    .await;
    assert!(lag().await > 0.0, "what waits is told");
    assert!(world.counted().await < 2050);

    kafka.limit_reading(None).await;
    world.has_counted(2050, seconds(60)).await;
    wait_until("nothing waits", seconds(20), async || lag().await == 0.0).await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

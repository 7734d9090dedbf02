//! A topic that has lost messages, or is not the one any more, is noticed, and nothing is skipped.

use testing::{Received, Service, wait_until};

use crate::world::{World, many, seconds};

/// The numbers under `field` of the lines that say so.
fn told(service: &Service, message: &str, field: &str) -> Vec<i64> {
    let lines = service.log().into_iter().filter(|line| line["message"] == message);
    lines.map(|line| line[field].as_i64().unwrap()).collect()
}

const DELETED: &str = "messages were deleted before they were read";
const CREATED_ANEW: &str = "the topic was created anew";

/// Waits until it has compared the topic with its positions from beginning to end.
async fn has_looked_twice(service: &Service) {
    let looks = async || service.health().await["components"]["continuity"]["lastSuccess"].clone();
    for _ in 0..2 {
        let before = looks().await;
        wait_until("it has looked", seconds(20), async || looks().await != before).await;
    }
}

#[tokio::test]
async fn messages_that_were_deleted_unread_are_told_by_their_number_and_reading_goes_on_behind_them() {
    let world = World::new(1).await;
    world.produce(&many(10)).await;
    world.run_to_rest().await;
    world.produce(&many(20)).await;
    world.topic().delete_before(0, 18).await;
    let service = world.setup().start().await;
    world.has_counted(22, seconds(20)).await;
    wait_until("it tells", seconds(20), async || !told(&service, DELETED, "messages").is_empty()).await;
    assert!(service.health().await["components"]["continuity"]["lastError"].is_string());
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));

    // All there was; nothing comes behind the gap at first.
    world.produce(&many(5)).await;
    world.topic().delete_before(0, 35).await;
    let service = world.setup().start().await;
    wait_until("it tells", seconds(30), async || !told(&service, DELETED, "messages").is_empty()).await;
    world.produce(&many(3)).await;
    world.at_rest().await;
    assert_eq!(told(&service, DELETED, "messages"), [5], "once");
    assert_eq!((world.counted().await, world.quarantined().await), (25, 0));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn what_is_deleted_after_it_was_read_is_no_loss() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    world.produce(&many(10)).await;
    world.at_rest().await;
    world.topic().delete_before(0, 10).await;
    world.produce(&many(10)).await;
    world.at_rest().await;
    has_looked_twice(&service).await;
    assert_eq!(told(&service, DELETED, "messages"), [0; 0]);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

const POSITION: &str = "SELECT next_offset FROM consumer_positions";

pub async fn is_deleted(world: &World) {
    world.topic().delete().await;
    wait_until("the topic is gone", seconds(20), async || world.topic().ends().await.is_empty()).await;
}

/// Counts the messages of a topic, and lets it be deleted and created anew with other ones, while the service runs or
/// not; it runs then.
async fn with_a_topic_created_anew(messages: &[Received], anew: &[Received], while_it_runs: bool) -> (World, Service) {
    let world = World::new(1).await;
    world.produce(messages).await;
    let mut service = world.setup().start().await;
    world.at_rest().await;
    if !while_it_runs {
        service.terminate();
        assert_eq!(service.ended(seconds(15)).await.code(), Some(0));
    }
    is_deleted(&world).await;
    world.topic().create(1, &[]).await;
    world.produce(anew).await;
    if !while_it_runs {
        service = world.setup().start().await;
    }
    (world, service)
}

async fn is_created_anew(while_it_runs: bool) {
    let messages = many(100);
    // As a rebroadcast does: the same messages again, fewer at first than there were.
    let (world, service) = with_a_topic_created_anew(&messages, &messages[..30], while_it_runs).await;
    wait_until("it tells", seconds(40), async || told(&service, CREATED_ANEW, "position") == [100]).await;
    wait_until("the position is that of the new topic", seconds(20), async || {
        world.database.number(POSITION).await == 30
    })
    .await;
    world.produce(&messages[30..]).await;
    world.produce(&many(20)).await;
    world.at_rest().await;
    assert_eq!(world.database.number(POSITION).await, 120);
    assert_eq!((world.counted().await, world.quarantined().await), (120, 0));
    assert_eq!(told(&service, CREATED_ANEW, "position"), [100], "once");
    assert_eq!(told(&service, DELETED, "messages"), [0; 0]);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test]
async fn a_topic_that_was_created_anew_is_told_and_read_from_its_beginning() {
    is_created_anew(true).await;
}

#[tokio::test]
async fn so_is_one_that_was_created_anew_while_nobody_read_it() {
    is_created_anew(false).await;
}

#[tokio::test]
async fn it_is_told_once_even_if_it_is_noticed_while_the_first_of_the_new_messages_are_counted() {
    let world = World::new(1).await;
    let service = world.setup().start().await;
    let messages = many(3);
    world.produce(&messages).await;
    world.at_rest().await;
    is_deleted(&world).await;
    // Both want to write the position: what counts the new message, and what sees that it is one.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM consumer_positions FOR UPDATE").execute(&mut *lock).await.unwrap();
    world.topic().create(1, &[]).await;
    world.produce(&messages[..1]).await;
    world.has_waiting(2).await;
    lock.rollback().await.unwrap();
    wait_until("the position is that of the new topic", seconds(20), async || {
        world.database.number(POSITION).await == 1
    })
    .await;
    has_looked_twice(&service).await;
    assert_eq!(told(&service, CREATED_ANEW, "position"), [3], "once");
    world.produce(&messages[1..]).await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (3, 0));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// The new topic has more messages than the old one before anybody looks at it.
async fn is_created_anew_and_grows_at_once(while_it_runs: bool) {
    let (messages, mut anew) = (many(5), many(5));
    anew.extend_from_slice(&messages);
    let (world, service) = with_a_topic_created_anew(&messages, &anew, while_it_runs).await;
    world.has_counted(10, seconds(40)).await;
    // Kafka's client may have begun anew by itself before it was seen.
    wait_until("it tells", seconds(20), async || told(&service, CREATED_ANEW, "position").len() == 1).await;
    assert_eq!(service.metrics().await.sum("activity_topics_created_anew_total"), 1.0);
    world.at_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (10, 0));
    assert_eq!(world.database.number(POSITION).await, 10);
    has_looked_twice(&service).await;
    assert_eq!(told(&service, CREATED_ANEW, "position").len(), 1, "once");
    assert_eq!(told(&service, DELETED, "messages"), [0; 0]);
    assert_eq!(service.stop().await, Some(0));
    world.judge_figures().await;
}

/// Holds: No topic that was created anew passes for the one that was read.
#[tokio::test]
async fn a_topic_created_anew_that_has_outgrown_the_old_one_is_read_from_its_beginning() {
    is_created_anew_and_grows_at_once(true).await;
}

#[tokio::test]
async fn so_is_one_that_has_outgrown_the_old_one_while_nobody_read_it() {
    is_created_anew_and_grows_at_once(false).await;
}

#[tokio::test]
async fn killed_between_the_sight_of_a_new_topic_and_its_first_messages_it_reads_them_all_the_same() {
    let world = World::new(1).await;
    let messages = many(5);
    world.produce(&messages).await;
    let service = world.setup().start().await;
    world.at_rest().await;
    // As long as it is held no batch comes to its end.
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daily_activity_shards IN SHARE ROW EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    is_deleted(&world).await;
    world.topic().create(1, &[]).await;
    let mut anew = many(5);
    anew.extend_from_slice(&messages);
    anew.extend(many(5));
    world.produce(&anew).await;
    wait_until("it tells", seconds(40), async || !told(&service, CREATED_ANEW, "position").is_empty()).await;
    service.kill().await;
    world.has_no_sessions().await;
    lock.rollback().await.unwrap();
    assert_eq!(world.counted().await, 5);
    world.run_to_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (15, 0));
    world.judge_figures().await;
}

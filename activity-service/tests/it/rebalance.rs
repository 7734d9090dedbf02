//! Partitions change hands while work is under way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use sqlx::{Postgres, Transaction};
use testing::{Received, wait_until};

use crate::world::{World, created, has_partitions, many, seconds};

/// As long as it is held no batch comes to its end.
async fn no_figure_changes(world: &World) -> Transaction<'static, Postgres> {
    let mut lock = world.database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE daily_activity_shards IN SHARE ROW EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    lock
}

#[tokio::test]
async fn two_instances_that_count_the_same_messages_after_a_rebalance_count_them_once() {
    let world = World::new(2).await;
    world.produce(&many(2000)).await;
    let lock = no_figure_changes(&world).await;
    let one = world.setup().start().await;
    world.has_waiting(1).await;
    // Nothing is committed: the second instance begins its partition where the first did.
    let other = world.setup().start().await;
    has_partitions(&one, |partitions| partitions == 1, seconds(20)).await;
    has_partitions(&other, |partitions| partitions == 1, seconds(20)).await;
    world.has_waiting(2).await;
    assert_eq!(world.counted().await, 0);
    lock.rollback().await.unwrap();
    world.at_rest().await;
    assert_eq!(world.counted().await, 2000);
    world.recount().no_offset_passes_the_database().await;
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn an_instance_that_loses_a_partition_with_a_batch_in_hand_commits_no_offset_of_it() {
    let world = World::new(2).await;
    world.produce(&many(2000)).await;
    // Its first batch is in a transaction long enough for the partition to move on.
    let one = world.setup().failpoint("consumer::before_commit", "1*sleep(6000)").start().await;
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE state = 'idle in transaction' AND datname = current_database()";
    let in_hand = async || world.database.number(open).await == 1;
    wait_until("a batch is in hand", seconds(20), in_hand).await;
    let other = world.setup().start().await;
    has_partitions(&other, |partitions| partitions == 1, seconds(20)).await;
    for _ in 0..5 {
        world.recount().no_offset_passes_the_database().await;
    }
    world.at_rest().await;
    assert_eq!(world.counted().await, 2000);
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test]
async fn an_instance_paused_in_the_middle_of_a_batch_wakes_up_without_its_partitions_and_does_no_harm() {
    let world = World::new(2).await;
    world.produce(&many(2000)).await;
    let lock = no_figure_changes(&world).await;
    let paused = world.setup().start().await;
    world.has_waiting(1).await;
    paused.pause();
    let other = world.setup().start().await;
    // The broker gives it up after the session time-out.
    has_partitions(&other, |partitions| partitions == 2, seconds(30)).await;
    // What the first left open in Postgres is in the way of the other, but not for ever.
    lock.rollback().await.unwrap();
    world.at_rest().await;
    assert_eq!(world.counted().await, 2000);
    paused.resume();
    has_partitions(&paused, |partitions| partitions == 1, seconds(30)).await;
    world.produce(&many(500)).await;
    world.at_rest().await;
    world.recount().no_offset_passes_the_database().await;
    assert_eq!(world.counted().await, 2500);
    assert_eq!((paused.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_partitions_of_a_member_that_died_and_of_one_that_stopped_meanwhile_are_read_within_15_s() {
    let world = World::new(6).await;
    let setup = world.setup();
    // The first assigns the partitions to all.
    let mut first = setup.start().await;
    has_partitions(&first, |partitions| partitions == 6, seconds(30)).await;
    let (second, third) = tokio::join!(setup.start(), setup.start());
    for service in [&first, &second, &third] {
        has_partitions(service, |partitions| partitions == 2, seconds(30)).await;
    }
    let changing = async {
        world.has_counted(1000, seconds(20)).await;
        let died = Instant::now();
        second.kill().await;
        // Whoever joins makes the others join anew, and the broker waits for the dead one: the first is
        // stopped in the middle of that, with offsets to tell.
        let fourth = setup.start().await;
        tokio::time::sleep(seconds(1)).await;
        first.terminate();
        let (half, left) = (|partitions| partitions == 3, || seconds(15).saturating_sub(died.elapsed()));
        tokio::join!(has_partitions(&third, half, left()), has_partitions(&fourth, half, left()));
        assert_eq!(first.ended(seconds(15)).await.code(), Some(0));
        (third, fourth)
    };
    let (written, (third, fourth)) = world.topic().produce_during(created, changing).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, i64::try_from(written).unwrap());
    assert_eq!((third.stop().await, fourth.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_members_join_and_leave_and_die_under_load_the_figures_are_exact() {
    let world = World::new(6).await;
    let setup = world.setup().set("consumer.batch_max_messages", 300).set("consumer.batch_max_wait", "5ms");
    let changing = async {
        let first = setup.start().await;
        world.has_counted(500, seconds(20)).await;
        let second = setup.start().await;
        has_partitions(&second, |partitions| partitions == 3, seconds(20)).await;
        let (third, fourth) = tokio::join!(setup.start(), setup.start());
        has_partitions(&third, |partitions| partitions > 0, seconds(20)).await;
        has_partitions(&fourth, |partitions| partitions > 0, seconds(20)).await;
        world.recount().no_offset_passes_the_database().await;
        assert_eq!(first.stop().await, Some(0));
        second.kill().await;
        world.recount().no_offset_passes_the_database().await;
        // The dead one's partitions are read again within 15 s.
        let half = |partitions| partitions == 3;
        tokio::join!(has_partitions(&third, half, seconds(15)), has_partitions(&fourth, half, seconds(15)));
        let (fifth, code) = tokio::join!(setup.start(), third.stop());
        assert_eq!(code, Some(0));
        tokio::join!(has_partitions(&fourth, half, seconds(15)), has_partitions(&fifth, half, seconds(15)));
        (fourth, fifth)
    };
    let watched = world.recount();
    let (written, (one, other)) =
        world.topic().produce_during(created, watched.while_the_figures_agree(changing)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, i64::try_from(written).unwrap());
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_were_paused_when_they_were_taken_away_are_read_when_they_come_back() {
    let world = World::new(6).await;
    world.produce(&many(3000)).await;
    let lock = no_figure_changes(&world).await;
    let setup = world.setup().set("consumer.batch_max_messages", 100);
    let one = setup.start().await;
    world.has_waiting(1).await;
    // Another full batch waits behind the one in its transaction, for longer than it does before all is paused.
    tokio::time::sleep(seconds(3)).await;
    let other = setup.start().await;
    has_partitions(&other, |partitions| partitions == 3, seconds(20)).await;
    // Only what it still has is resumed.
    lock.rollback().await.unwrap();
    world.at_rest().await;
    assert_eq!(other.stop().await, Some(0));
    has_partitions(&one, |partitions| partitions == 6, seconds(30)).await;
    world.produce(&many(600)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 3600);
    assert_eq!(one.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_client_has_to_say_a_rebalance_behind_it_is_served_at_once() {
    let world = World::new(6).await;
    // Some thousand lines a second, each an event in the queue of messages and rebalances.
    let setup = world.setup().set("kafka.properties.debug", "broker,protocol,cgrp,fetch");
    let one = setup.start().await;
    world.produce(&many(3000)).await;
    world.has_counted(3000, seconds(20)).await;
    let other = setup.start().await;
    has_partitions(&other, |partitions| partitions == 3, seconds(20)).await;
    world.produce(&many(3000)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 6000);
    assert_eq!((one.stop().await, other.stop().await), (Some(0), Some(0)));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_broker_assigns_the_partitions_counts_each_message_once_through_changes_of_its_members() {
    let world = World::new(4).await;
    let setup = world.setup().set("kafka.properties.group.protocol", "consumer");
    let one = setup.start().await;
    world.produce(&many(1000)).await;
    world.has_counted(1000, seconds(30)).await;
    let other = setup.start().await;
    has_partitions(&one, |partitions| partitions == 2, seconds(30)).await;
    has_partitions(&other, |partitions| partitions == 2, seconds(30)).await;
    world.produce(&many(1000)).await;
    world.has_counted(2000, seconds(30)).await;
    assert_eq!(other.stop().await, Some(0));
    has_partitions(&one, |partitions| partitions == 4, seconds(30)).await;
    world.produce(&many(1000)).await;
    world.at_rest().await;
    assert_eq!(world.counted().await, 3000);
    assert_eq!(one.stop().await, Some(0));
    world.judge().await;
}

/// As where the coordinator moves to another broker just then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_the_client_forgets_when_it_is_assigned_is_read_all_the_same() {
    let cluster = MockCluster::new(1).unwrap();
    let world = World::with_brokers(cluster.bootstrap_servers()).await;
    cluster.create_topic(&world.topic().name, 1, 1).unwrap();
    world.produce(&many(10)).await;
    // The client that reads asks first. Others ask too, and ask again.
    cluster.request_errors(RDKafkaApiKey::OffsetFetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 3]);
    let service = world.setup().start().await;
    world.has_counted(10, seconds(40)).await;
    assert!(service.has_logged("the client does not begin to read what it was assigned: joining the group anew"));
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// As one whose rebalance is stuck: it sends heartbeats, and the partitions are nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_tells_nothing_any_more_is_replaced_without_a_restart() {
    let world = World::new(2).await;
    let service = world.setup().failpoint("consumer::unserved", "return").start().await;
    world.produce(&many(10)).await;
    world.has_counted(10, seconds(60)).await;
    assert!(service.has_logged("the client tells nothing any more: joining the group anew"));
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// As an installation that was set up with the settings of another one, and its own database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_another_installation_reads_is_told_by_those_who_have_counted_their_own() {
    const UNREAD: &str = "activity_unread_elsewhere_seconds";
    let world = World::new(2).await;
    let service = world.setup().start().await;
    let of_partition = |partition| many(30).into_iter().map(move |message| Received { partition, ..message });
    let both = || of_partition(0).chain(of_partition(1)).collect::<Vec<_>>();
    world.produce(&both()).await;
    world.at_rest().await;
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &world.topic().brokers)
        .set("group.id", &world.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", "500")
        .create()
        .unwrap();
    other.subscribe(&[&world.topic().name]).unwrap();
    let goes_on = Arc::new(AtomicBool::new(true));
    let reading = std::thread::spawn({
        let goes_on = Arc::clone(&goes_on);
        move || {
            while goes_on.load(Ordering::Relaxed) {
                drop(other.poll(std::time::Duration::from_millis(100)));
            }
        }
    });
    has_partitions(&service, |partitions| partitions == 1, seconds(40)).await;
    world.produce(&both()).await;
    world.has_counted(90, seconds(20)).await;
    wait_until("it is told", seconds(90), async || service.metrics().await.sum(UNREAD) >= 30.0).await;
    assert_eq!(service.metrics().await.sum("activity_unread_seconds"), 0.0, "its own is counted");
    let why = service.health().await["components"]["elsewhere"]["lastError"].to_string();
    assert!(why.contains("30 messages wait") && why.contains("is somebody else in the group?"), "{why}");
    goes_on.store(false, Ordering::Relaxed);
    reading.join().unwrap();
    world.has_counted(120, seconds(40)).await;
    wait_until("it is over", seconds(30), async || service.metrics().await.sum(UNREAD) == 0.0).await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

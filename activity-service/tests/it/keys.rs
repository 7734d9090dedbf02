//! Where the keys of messages are, and what looking for them costs.

use std::{collections::BTreeSet, iter::repeat_with};

use activity_service::key;
use testing::{Received, wait_until};
use uuid::Uuid;

use crate::{
    operator::{EATEN, Operator},
    world::{World, created, dated, many, reference, seconds, undated},
};

fn with(message_ref: Uuid) -> Received {
    created().with_field("messageRef", message_ref.to_string())
}

/// Of this time, as the first bits tell it, and this version.
fn made_of(day: &str, version: u128) -> Uuid {
    Uuid::from_u128(reference(day, 0).as_u128() & !(0xf << 76) | version << 76)
}

/// Holds: The partition of a key depends on its reference alone, and each reference has one.
#[tokio::test]
async fn a_reference_of_any_kind_has_a_partition_by_itself_alone_and_counts_once() {
    let world = World::new(2).await;
    let days = ["2020-01-01", "2026-10-10", "2077-03-05", "2099-12-31"];
    let mut refs: Vec<(Uuid, String)> =
        days.iter().map(|day| (made_of(day, 7), format!("processed_messages_{}", day.replace('-', "")))).collect();
    let others = [Uuid::max(), made_of("2019-12-31", 7), made_of("2100-01-01", 7)].into_iter();
    // Of other versions, some of which seem to be of a day.
    let others = others.chain(days.iter().flat_map(|day| [1, 4, 6, 8].map(|version| made_of(day, version))));
    let others = others.chain(repeat_with(|| undated().message_ref().unwrap()).take(20));
    refs.extend(others.map(|one| (one, "processed_messages_undated".to_owned())));

    let messages: Vec<Received> = refs.iter().map(|(one, _)| with(*one)).collect();
    for _ in 0..2 {
        world.produce(&messages).await;
        world.run_to_rest().await;
    }
    world.read_again().await;
    assert_eq!(world.counted().await, i64::try_from(refs.len()).unwrap());
    assert_eq!(world.quarantined().await, 0);
    assert_eq!(world.partitions_of_keys().await, refs.into_iter().collect());
    for (reference, partition) in world.partitions_of_keys().await {
        assert_eq!(key::day(reference).is_none(), partition.ends_with("undated"), "{reference}");
    }
    world.judge().await;
}

#[tokio::test]
async fn messages_of_more_days_than_a_transaction_may_touch_are_counted_in_several() {
    let world = World::new(1).await;
    let first = time::macros::date!(2022 - 01 - 01);
    let days = (0..300).map(|day| (first + time::Duration::days(day)).to_string());
    let messages: Vec<Received> = days.map(|day| dated(&day, 1)).collect();
    world.produce(&messages[..150]).await;
    let waiting = messages[150..].iter().map(|one| one.clone().with_field("activityTypeCode", EATEN));
    world.produce(&waiting.map(|one| one.without_headers()).collect::<Vec<_>>()).await;
    // Both halves are in one batch.
    let service = world.setup().start().await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.quarantined().await), (150, 150));
    let made = world.key_days().await.into_iter().filter(|day| day.year() == first.year()).count();
    assert_eq!(made, 150, "what is refused needs no partition");
    assert_eq!(Operator::of(&service).register(EATEN, "Order Eaten").await.status, 201);
    assert_eq!(world.counted().await, 300);
    let at_once = "SELECT max(days) FROM
        (SELECT count(DISTINCT tableoid) AS days FROM processed_messages GROUP BY processed_at) AS transactions";
    assert!(world.database.number(at_once).await <= i64::try_from(key::DAYS_AT_ONCE).unwrap());
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// What the server has noted of the partitions of keys.
async fn noted(world: &World, what: &str) -> i64 {
    let tables = format!("SELECT coalesce(sum({what}), 0)::bigint FROM pg_stat_user_tables");
    world.database.number(&format!("{tables} WHERE relname LIKE 'processed\\_messages%'")).await
}

#[tokio::test]
async fn a_topic_that_is_read_again_has_its_keys_looked_up_by_the_page_and_not_one_by_one() {
    let world = World::new(6).await;
    let messages: Vec<_> =
        many(6000).into_iter().zip((0..6).cycle()).map(|(one, partition)| one.in_partition(partition)).collect();
    world.produce(&messages).await;
    world.run_to_rest().await;
    world.has_no_sessions().await;
    wait_until("the server has noted it", seconds(10), async || noted(&world, "n_tup_ins").await >= 6000).await;
    let before = noted(&world, "idx_scan").await;
    world.topic().forget(&world.group).await;
    // Of one partition or two: between their keys lie those of the others.
    let service = world.setup().set("consumer.batch_max_messages", 500).start().await;
    world.at_rest().await;
    assert_eq!(service.stop().await, Some(0));
    world.has_no_sessions().await;
    wait_until("the server has noted it", seconds(10), async || noted(&world, "idx_tup_fetch").await >= 6000).await;
    let scans = noted(&world, "idx_scan").await - before;
    assert!(scans < 600, "{scans} scans for 6000 messages");
    assert_eq!(world.counted().await, 6000);
    world.judge().await;
}

/// Holds: No key in a partition of a day is updated or deleted.
#[tokio::test]
async fn no_key_is_updated_or_deleted_by_counting() {
    let world = World::new(2).await;
    world.database.execute("UPDATE key_horizon SET newest_purged = '2026-11-20T12:00:00.5Z'").await;
    // The others are too old, for all that is known: their keys are tried.
    let younger = || created().with_field("activityAt", "2026-11-20T12:00:01Z");
    let messages: Vec<Received> =
        repeat_with(younger).take(500).chain(many(100)).chain(repeat_with(undated).take(100)).collect();
    for _ in 0..2 {
        world.produce(&messages).await;
        world.run_to_rest().await;
    }
    world.read_again().await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (500, 200));
    world.has_no_sessions().await;
    wait_until("the server has noted it", seconds(10), async || noted(&world, "n_tup_ins").await >= 500).await;
    assert_eq!((noted(&world, "n_tup_upd").await, noted(&world, "n_tup_del").await), (0, 0));
    world.judge().await;
}

#[tokio::test]
async fn a_message_that_stands_again_elsewhere_in_a_topic_that_is_read_again_is_still_a_copy() {
    let world = World::new(2).await;
    let messages = many(10);
    let in_partition = |at| messages.iter().map(move |one| one.clone().in_partition(at)).collect::<Vec<_>>();
    world.produce(&in_partition(0)).await;
    world.run_to_rest().await;
    // What is known already and what is new to the service come in one batch.
    world.produce(&in_partition(1)).await;
    world.produce(&in_partition(0)).await;
    world.read_again().await;
    assert_eq!(world.database.number("SELECT count(*) FROM message_copies").await, 20);
    let partitions: BTreeSet<_> = world.partitions_of_keys().await.into_values().collect();
    assert_eq!((world.counted().await, partitions.len()), (10, 1));
    world.judge().await;
}

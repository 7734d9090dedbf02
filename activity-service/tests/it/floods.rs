//! However many bad messages come, the good ones beside them are counted.

use std::time::Instant;

use serde_json::json;
use testing::Received;

use crate::{
    operator::{EATEN, Operator, eaten},
    world::{World, created, has_partitions, seconds},
};

const COPIES: usize = 300_000;

/// Holds: The copies of a message have one row in quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_thousand_copies_of_one_bad_message_stop_nothing_and_go_with_one_request() {
    let world = World::new(4).await;
    let service = world.setup().start().await;
    let copy = eaten().in_partition(0);
    let page = vec![copy.clone(); 10_000];
    let flood = async {
        for _ in 0..COPIES / page.len() {
            world.produce(&page).await;
        }
        let position = "SELECT coalesce(max(next_offset), 0) FROM consumer_positions WHERE partition = 0";
        let all = i64::try_from(COPIES).unwrap();
        testing::wait_until("it is dealt with", seconds(120), async || world.database.number(position).await == all)
            .await;
    };
    let good = async {
        let mut counted = 0;
        loop {
            let messages: Vec<Received> = (1..4).map(|partition| created().in_partition(partition)).collect();
            world.produce(&messages).await;
            counted += 3;
            let begun = Instant::now();
            world.has_counted(counted, seconds(60)).await;
            assert!(begun.elapsed() < seconds(5), "counted after {:?}", begun.elapsed());
            tokio::time::sleep(seconds(1) / 2).await;
        }
    };
    tokio::select! { () = flood => {}, () = good => {} }
    world.at_rest().await;
    let (_, most) = service.memory();
    assert!(most <= 128 << 20, "{} MB", most >> 20);

    let operator = Operator::of(&service);
    let waiting = operator.quarantine("").await;
    assert_eq!(waiting.len(), 1, "one for all copies");
    assert_eq!(waiting[0]["messages"], json!(COPIES));
    let id = operator.id_at(0, "waiting").await;
    assert_eq!(operator.discard(&id, "?reason=a%20loop").await.status, 200);
    world.produce(&[copy.clone(), copy.clone().in_partition(1), created()]).await;
    world.at_rest().await;
    assert_eq!((world.kept("waiting").await, world.kept("discarded").await), (0, 1));
    assert_eq!(operator.quarantine("state=discarded").await[0]["messages"], json!(COPIES + 2));
    assert_eq!(operator.register(EATEN, "Order Eaten").await.body, json!({"counted": 0, "duplicates": 0}));
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_copies_that_several_instances_read_at_once_each_is_noted_once_even_where_one_of_them_dies() {
    let world = World::new(4).await;
    let setup = world.setup().set("consumer.batch_max_messages", 100);
    let dying = setup.clone().failpoint("consumer::after_commit", "9*off->return");
    let (one, mut other) = tokio::join!(setup.start(), dying.start());
    for service in [&one, &other] {
        has_partitions(service, |partitions| partitions == 2, seconds(30)).await;
    }
    let copy = eaten();
    let messages: Vec<Received> = (0..8000)
        .map(|index| if index % 4 == 0 { created() } else { copy.clone() }.in_partition(index / 4 % 4))
        .collect();
    world.produce(&messages).await;
    other.ended(seconds(30)).await;
    world.at_rest().await;
    assert_eq!((world.counted().await, world.kept("waiting").await), (2000, 1));
    assert_eq!(Operator::of(&one).quarantine("").await[0]["messages"], json!(6000));
    assert_eq!(one.stop().await, Some(0));
    world.judge().await;
}

//! A topic may permit messages that are larger than the memory there is.

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::json;
use testing::{Topic, wait_until};

use crate::{
    operator::Operator,
    world::{World, created, many, seconds},
};

/// The memory that the deployment permits.
const LIMIT: u64 = 256 * 1024 * 1024;
const MEGABYTES_50: usize = 50 * 1_000_000;

#[tokio::test]
async fn messages_of_50_megabytes_are_counted_or_kept_by_their_hash_in_the_memory_there_is() {
    let mut world = World::new(1).await;
    let largest = Topic::unborn();
    largest.create(1, &[("max.message.bytes", "52428800")]).await;
    world.topics = vec![largest];
    let padded = created().with_field("note", "x".repeat(MEGABYTES_50));
    let unreadable = created().with_value(vec![b'x'; MEGABYTES_50]);
    for message in [padded, unreadable.clone(), created(), unreadable, created()] {
        world.produce(&[message]).await;
    }
    let service = world.setup().start().await;
    world.has_counted(3, seconds(60)).await;
    world.at_rest().await;
    let operator = Operator::of(&service);
    let kept = operator.quarantine("").await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    let told = (&kept[0]["reason"], &kept[0]["messages"], kept[0]["valueSha256"].is_string());
    assert_eq!(told, (&json!("not_json"), &json!(2), true));
    assert_eq!(world.counted().await, 3);
    let (_, most) = service.memory();
    assert!(most < LIMIT, "{} MiB", most / 1024 / 1024);
    assert_eq!(service.stop().await, Some(0));
    world.judge().await;
}

/// Holds: A partition does not wait for its beginning behind another one that has much to read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_reading_begins_is_found_of_each_partition_however_large_batches_are() {
    const PARTITIONS: i32 = 6;
    let world = World::new(PARTITIONS).await;
    // Of 200 kB each, which no compression makes smaller.
    let batches = async |partition, count: usize| {
        let note =
            || std::iter::repeat_with(|| uuid::Uuid::now_v7().simple().to_string()).take(600).collect::<String>();
        let messages = many(10 * count).into_iter().map(|message| message.with_field("note", note()));
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &world.topic().brokers)
            .set("linger.ms", "50")
            .set("batch.num.messages", "10")
            .create()
            .unwrap();
        let sent = messages.map(|message| {
            let (key, value) = (message.key.unwrap(), message.value.unwrap());
            let record = FutureRecord::to(&world.topic().name).partition(partition).key(&key).payload(&value);
            producer.send_result(record).map_err(|(error, _)| error).unwrap()
        });
        for one in sent.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
    };
    for partition in 0..PARTITIONS {
        batches(partition, 1).await;
    }
    world.run_to_rest().await;
    batches(0, 400).await;
    for partition in 1..PARTITIONS {
        batches(partition, 1).await;
    }
    // They would be found one after the other, as the one with the backlog comes to its end.
    let setup = world.setup().set("consumer.batch_max_messages", 20).failpoint("consumer::counted", "sleep(200)");
    let service = setup.start().await;
    let others = "SELECT count(*) FROM processed_messages WHERE partition > 0";
    wait_until("the others are counted", seconds(20), async || world.database.number(others).await == 100).await;
    assert_eq!(service.stop().await, Some(0));
    world.run_to_rest().await;
    world.judge().await;
}

/// What is read at a time may be less than a message that the operator permits, which librdkafka refuses.
#[tokio::test]
async fn it_counts_whatever_an_operator_permits_a_message_to_have_and_after_the_next_start_too() {
    let world = World::new(1).await;
    for (counted, bytes) in [(10, 5_000_000), (20, 2_000_000)] {
        let service = world.setup().set("kafka.properties.message.max.bytes", bytes).start().await;
        world.produce(&many(10)).await;
        world.has_counted(counted, seconds(20)).await;
        world.at_rest().await;
        assert_eq!(service.stop().await, Some(0));
    }
    world.judge().await;
}

//! What only tests of consumers ask of a topic: a stream of messages, its ends, its groups.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use tokio::task::spawn_blocking;

use crate::{
    Received, Topic,
    kafka::client,
    topic::{producer, send, watermarks},
    wait_until,
};

const WITHIN: Duration = Duration::from_secs(30);

impl Topic {
    /// Writes what `make` makes, 50 at a time, as long as `work` takes; while the broker is away it
    /// waits. Answers with how many were written.
    pub async fn produce_during<T>(&self, make: impl Fn() -> Received, work: impl Future<Output = T>) -> (u64, T) {
        let go_on = AtomicBool::new(true);
        let writing = async {
            let producer = producer(&self.brokers);
            let mut written = 0;
            while go_on.load(Ordering::Relaxed) {
                let some: Vec<_> = std::iter::repeat_with(&make).take(50).collect();
                send(&producer, &self.name, &some).await;
                written += 50;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            written
        };
        let working = async {
            let done = work.await;
            go_on.store(false, Ordering::Relaxed);
            done
        };
        tokio::join!(writing, working)
    }

    /// What the next message of each partition will have as its offset. Empty where there is no
    /// topic.
    pub async fn ends(&self) -> Vec<i64> {
        self.watermarks().await.into_iter().map(|(_, end)| end).collect()
    }

    /// Where each partition begins and ends: messages before may have been deleted.
    pub async fn watermarks(&self) -> Vec<(i64, i64)> {
        let topic = self.clone();
        let ask = move || {
            let consumer: BaseConsumer = client(&topic.brokers).create().unwrap();
            let metadata = consumer.fetch_metadata(Some(&topic.name), WITHIN).unwrap();
            let mut partitions: Vec<_> = metadata.topics()[0].partitions().iter().map(|one| one.id()).collect();
            partitions.sort_unstable();
            let marks = |partition| watermarks(&consumer, &topic.name, partition);
            partitions.into_iter().map(marks).collect()
        };
        spawn_blocking(ask).await.unwrap()
    }

    /// The number of the broker that leads most partitions.
    ///
    /// # Panics
    /// None leads any.
    pub async fn leader(&self) -> i32 {
        let leaders: Vec<_> = self.state().await.into_iter().map(|(leader, _)| leader).collect();
        let partitions_of = |leader: &i32| leaders.iter().filter(|one| *one == leader).count();
        leaders.iter().copied().filter(|leader| *leader >= 0).max_by_key(partitions_of).unwrap()
    }

    /// Of each partition the broker that leads it, and how many of its replicas are not in sync.
    async fn state(&self) -> Vec<(i32, usize)> {
        let topic = self.clone();
        let ask = move || {
            let consumer: BaseConsumer = client(&topic.brokers).create().unwrap();
            // Brokers that have just come do not answer yet.
            let Ok(metadata) = consumer.fetch_metadata(Some(&topic.name), WITHIN) else { return Vec::new() };
            let partitions = metadata.topics()[0].partitions().iter();
            partitions.map(|one| (one.leader(), one.replicas().len() - one.isr().len())).collect()
        };
        spawn_blocking(ask).await.unwrap()
    }

    /// Waits until each partition has a leader and each replica is in sync.
    ///
    /// # Panics
    /// Not within `limit`.
    pub async fn in_sync(&self, limit: Duration) {
        wait_until("every replica is in sync", limit, async || {
            let state = self.state().await;
            !state.is_empty() && state.iter().all(|(leader, lacks)| *leader >= 0 && *lacks == 0)
        })
        .await;
    }

    /// Makes the topic have `count` partitions.
    pub async fn grow_to(&self, count: usize) {
        let admin: AdminClient<DefaultClientContext> = client(&self.brokers).create().unwrap();
        let wanted = NewPartitions::new(&self.name, count);
        let done = admin.create_partitions([&wanted], &AdminOptions::new()).await.unwrap();
        done.into_iter().for_each(|one| drop(one.unwrap()));
    }

    /// Deletes a partition's messages before `offset`.
    pub async fn delete_before(&self, partition: i32, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = client(&self.brokers).create().unwrap();
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(&self.name, partition, Offset::Offset(offset)).unwrap();
        let done = admin.delete_records(&wanted, &AdminOptions::new()).await.unwrap();
        done.elements().into_iter().for_each(|one| one.error().unwrap());
    }

    /// Deletes a consumer group, which has no members any more, with all its offsets.
    pub async fn forget(&self, group: &str) {
        let admin: AdminClient<DefaultClientContext> = client(&self.brokers).create().unwrap();
        let done = admin.delete_groups(&[group], &AdminOptions::new()).await.unwrap();
        done.into_iter().for_each(|one| drop(one.unwrap()));
    }

    /// Tells Kafka that a group without members has read partition 0 up to `offset`.
    pub async fn commit(&self, group: &str, offset: i64) {
        let (topic, group) = (self.clone(), group.to_owned());
        let commit = move || {
            let consumer: BaseConsumer = client(&topic.brokers).set("group.id", group).create().unwrap();
            let mut told = TopicPartitionList::new();
            told.add_partition_offset(&topic.name, 0, Offset::Offset(offset)).unwrap();
            consumer.commit(&told, CommitMode::Sync).unwrap();
        };
        spawn_blocking(commit).await.unwrap();
    }
}

//! What one test needs: a database, a topic, a group, the service on them, and the judgement at
//! the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use activity_service::{app::MIGRATIONS, key};
use serde_json::Value;
use testing::{
    Client, Database, History, Kafka, Postgres, Received, Recount, Service, Setup, Topic, announcement, wait_until,
};
use time::{Date, format_description::well_known::Iso8601};
use uuid::Uuid;

pub const CREATED: &str = "ORDER_CREATED";

pub fn binary() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_activity-service"))
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An activity of a day of its own time, 2026-11-20.
pub fn created() -> Received {
    announcement(CREATED, "2026-11-20T12:00:00.123456Z")
}

/// A message whose reference is not of version 7 and carries no time.
pub fn undated() -> Received {
    let message = created();
    let of_version_4 = Uuid::from_u128(message.message_ref().unwrap().as_u128() ^ (0b0011 << 76));
    message.with_field("messageRef", of_version_4.to_string())
}

/// The reference of a day: the `number`th of its first ones.
pub fn reference(day: &str, number: u128) -> Uuid {
    let day = Date::parse(day, &Iso8601::DATE).unwrap();
    Uuid::from_u128(key::begin(day).as_u128() | 0x7 << 76 | 0x8 << 60 | number)
}

/// A message with the reference of a day.
pub fn dated(day: &str, number: u128) -> Received {
    created().with_field("messageRef", reference(day, number).to_string())
}

pub fn many(count: usize) -> Vec<Received> {
    std::iter::repeat_with(created).take(count).collect()
}

/// A test that does not ask for judgement at its end fails.
pub struct World {
    pub database: Database,
    pub topics: Vec<Topic>,
    pub group: String,
    judged: bool,
}

impl World {
    /// On the stack's servers, with a topic of so many partitions.
    pub async fn new(partitions: i32) -> Self {
        let topic = Topic::new(partitions, &[]).await;
        Self::of(Database::new(&MIGRATIONS).await, topic)
    }

    /// On the stack's servers, with a topic that is not there.
    pub async fn without_topic() -> Self {
        Self::of(Database::new(&MIGRATIONS).await, Topic::unborn())
    }

    /// With a broker of the test's own, which has no topic yet.
    pub async fn with_kafka(kafka: &Kafka) -> Self {
        Self::of(Database::new(&MIGRATIONS).await, Topic::unborn_on(kafka))
    }

    /// With other brokers, which have no topic yet.
    pub async fn with_brokers(brokers: String) -> Self {
        Self::of(Database::new(&MIGRATIONS).await, Topic::unborn_at(brokers))
    }

    /// With a Postgres of the test's own.
    pub async fn with_postgres(postgres: &Postgres, partitions: i32) -> Self {
        let topic = Topic::new(partitions, &[]).await;
        Self::of(Database::on(postgres, &MIGRATIONS).await, topic)
    }

    /// On a database without a schema.
    pub async fn unmigrated(database: Database) -> Self {
        Self::of(database, Topic::new(3, &[]).await)
    }

    fn of(database: Database, topic: Topic) -> Self {
        Self { database, group: format!("group-of-{}", topic.name), topics: vec![topic], judged: false }
    }

    pub fn setup(&self) -> Setup {
        let topics: Vec<_> = self.topics.iter().map(|topic| topic.name.as_str()).collect();
        let setup = binary().set("database.url", self.database.url()).set("kafka.brokers", &self.topic().brokers);
        setup
            .set("kafka.topics", topics.join(","))
            .set("kafka.group_id", &self.group)
            .set("kafka.progress_topic", format!("{}.progress", self.topic().name))
            .set("consumer.backoff_max", "500ms")
    }

    pub fn topic(&self) -> &Topic {
        &self.topics[0]
    }

    pub async fn produce(&self, messages: &[Received]) {
        self.topic().produce(messages).await;
    }

    pub fn recount(&self) -> Recount {
        Recount { pool: self.database.pool.clone(), topics: self.topics.clone(), group: self.group.clone() }
    }

    /// The partition of each key, by reference.
    pub async fn partitions_of_keys(&self) -> BTreeMap<Uuid, String> {
        let keys = "SELECT message_ref, tableoid::regclass::text FROM processed_messages";
        let keys: Vec<(Uuid, String)> = sqlx::query_as(keys).fetch_all(&self.database.pool).await.unwrap();
        keys.into_iter().collect()
    }

    /// The days that have a partition.
    pub async fn key_days(&self) -> BTreeSet<Date> {
        let days: Vec<Date> =
            sqlx::query_scalar("SELECT day FROM key_days").fetch_all(&self.database.pool).await.unwrap();
        days.into_iter().collect()
    }

    /// How many activities the figures tell of.
    pub async fn counted(&self) -> i64 {
        self.database.number("SELECT coalesce(sum(quantity), 0)::bigint FROM daily_activities").await
    }

    pub async fn quarantined(&self) -> i64 {
        self.database.number("SELECT count(*) FROM quarantine").await
    }

    /// Waits until so many are counted.
    pub async fn has_counted(&self, count: i64, limit: Duration) {
        wait_until("they are counted", limit, async || self.counted().await >= count).await;
    }

    /// Waits until everything on the topics has been dealt with, and Kafka knows.
    pub async fn at_rest(&self) {
        self.recount().at_rest(seconds(30)).await;
    }

    /// Waits until so many transactions of the service wait for a lock of the test.
    pub async fn has_waiting(&self, transactions: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
            AND datname = current_database() AND application_name LIKE 'activity-service%'";
        let enough = async || self.database.number(waiting).await >= transactions;
        wait_until("transactions wait for the lock", seconds(20), enough).await;
    }

    /// Waits until the server has noticed that the service is gone.
    pub async fn has_no_sessions(&self) {
        let sessions = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'activity-service%'";
        wait_until("no session is left", seconds(10), async || self.database.number(sessions).await == 0).await;
    }

    /// Starts the service for as long as it takes to deal with everything on the topics.
    pub async fn run_to_rest(&self) {
        let service = self.setup().start().await;
        self.at_rest().await;
        assert_eq!(service.stop().await, Some(0));
    }

    /// Fails the test unless everything promised holds, and nothing is left undone.
    pub async fn judge(mut self) {
        self.judged = true;
        self.at_rest().await;
        self.recount().judge().await;
    }

    /// As [`World::judge`], for a test that has purged keys.
    pub async fn judge_purged(mut self) {
        self.judged = true;
        self.at_rest().await;
        self.recount().judge_messages().await;
    }

    /// As [`World::judge`], for a test whose keys tell of places on a topic that is not there any more.
    pub async fn judge_figures(mut self) {
        self.judged = true;
        self.at_rest().await;
        self.recount().judge_figures().await;
    }

    /// As [`World::judge`], for a test that has read nothing.
    pub async fn judge_nothing_counted(mut self) {
        self.judged = true;
        let rows = "SELECT (SELECT count(*) FROM daily_activities) + (SELECT count(*) FROM processed_messages)
            + (SELECT count(*) FROM quarantine) + (SELECT count(*) FROM consumer_positions)";
        assert_eq!(self.database.number(rows).await, 0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        assert!(self.judged || std::thread::panicking(), "the test ended without judgement");
    }
}

pub fn client(service: &Service) -> Client {
    Client::new(service.api(), &History::default())
}

/// The figures under a path: day, code, quantity.
pub async fn figures(service: &Service, path: &str) -> Vec<(String, String, i64)> {
    let answer = client(service).get(path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let of = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        (text("activityDate"), text("activityTypeCode"), one["quantity"].as_i64().unwrap())
    };
    answer.body.as_array().unwrap().iter().map(of).collect()
}

/// Waits until an instance has so many partitions.
pub async fn has_partitions(service: &Service, partitions: impl Fn(u64) -> bool, limit: Duration) {
    wait_until("the instance has its partitions", limit, async || {
        let mut changes = service.log().into_iter().filter(|line| line["message"] == "assignment changed");
        changes.next_back().and_then(|line| line["partitions"].as_u64()).is_some_and(&partitions)
    })
    .await;
}

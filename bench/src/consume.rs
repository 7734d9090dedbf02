//! Messages counted by activity-service, against its own SQL in a loop without Kafka.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use activity_service::{
    activity::{self, Activity, Received},
    app::MIGRATIONS,
    record::Digest,
    statistics::{self, PositionAfter},
};
use anyhow::{Context, Result, anyhow, ensure};
use rdkafka::Message;
use sqlx::Connection;
use testing::{Database, Topic, wait_until};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::{
    announcements,
    figures::{Aim, Figure, Report},
    pairs::interleaved,
    scale::Scale,
    services, topic,
};

const WITHIN: Duration = Duration::from_secs(180);
/// As the service's default `consumer.batch_max_messages`.
const BATCH: usize = 5000;
const ZONE: &str = "UTC";
/// How the partitions alternate depends on it, and on that how far apart the keys of a batch are.
const FETCHED_AS_BY_THE_SERVICE: [(&str, &str); 3] =
    [("fetch.max.bytes", "2097152"), ("queued.max.messages.kbytes", "4096"), ("queued.min.messages", "10000")];

pub struct Counted {
    /// From the start of the first counting transaction.
    pub per_second: f64,
    pub since_start_per_second: f64,
    pub memory_mb: f64,
}

/// The topic's messages in the order in which a consumer gets them.
pub struct Messages {
    pub topic: Topic,
    all: Vec<Arrived>,
}

struct Arrived {
    activity: Activity,
    partition: i32,
    offset: i64,
}

pub async fn measure(scale: &Scale) -> Result<Report> {
    let messages = Messages::prepare("consume", scale.messages).await?;
    let service = async || by_services(&messages, 1).await;
    let pairs = interleaved("consume", scale.pairs, service, async || by_loop(&messages).await).await?;
    messages.delete().await;
    let (service, sql) = (|pair: &(Counted, f64)| pair.0.per_second, |pair: &(Counted, f64)| pair.1);
    let whole = pairs.runs.iter().map(|pair| pair.0.since_start_per_second);
    let memory = pairs.runs.iter().map(|pair| pair.0.memory_mb);
    Ok(Report {
        name: "consume",
        about: "messages counted, from the first transaction to the last; the loop has them parsed in memory",
        figures: vec![
            Figure::new("activity-service", "msgs/s", pairs.runs.iter().map(service)),
            Figure::new("activity-service, from the start of its process", "msgs/s", whole),
            Figure::new("its SQL in a loop, batches of 5,000", "msgs/s", pairs.runs.iter().map(sql)),
            Figure::ratio("activity-service to its SQL", &pairs.runs, service, sql).aim(Aim::AtLeast(0.9)),
            Figure::new("activity-service, most resident memory", "MB", memory).aim(Aim::AtMost(64.0)),
        ],
        load: pairs.load,
    })
}

impl Messages {
    pub async fn prepare(name: &str, count: usize) -> Result<Self> {
        eprintln!("{name}: writing {count} messages");
        let topic = Topic::new(topic::PARTITIONS, &[]).await;
        announcements::produce(&topic, count).await?;
        let all = topic::each(&topic, &FETCHED_AS_BY_THE_SERVICE, |message| {
            let parsed = activity::parse(message.payload(), None);
            let activity = parsed.map_err(|rejected| anyhow!("{rejected:?}"))?;
            Ok(Arrived { activity, partition: message.partition(), offset: message.offset() })
        })
        .await?;
        let refs: HashSet<Uuid> = all.iter().map(|one| one.activity.message_ref).collect();
        ensure!((refs.len(), all.len()) == (count, count), "{} of {count} messages are on the topic", all.len());
        Ok(Self { topic, all })
    }

    /// What is to be counted of each type on each day.
    pub fn by_day(&self) -> BTreeMap<(Date, String), i64> {
        let mut expected = BTreeMap::new();
        for Arrived { activity, .. } in &self.all {
            *expected.entry((activity.at.date(), activity.code.as_str().to_owned())).or_insert(0) += 1;
        }
        expected
    }

    pub async fn delete(self) {
        self.topic.delete().await;
    }
}

/// Counts them with that many services in one group.
pub async fn by_services(messages: &Messages, instances: usize) -> Result<Counted> {
    let database = start().await;
    let setup = services::activity_service(&database, &messages.topic)?;
    let count = messages.all.len();
    let started = OffsetDateTime::now_utc();
    let services: Vec<_> = (0..instances).map(|_| setup.spawn()).collect();
    wait_until("everything is counted", WITHIN, async || {
        // A handful of rows.
        let counted = database.number("SELECT coalesce(sum(quantity), 0)::bigint FROM daily_activities").await;
        usize::try_from(counted).is_ok_and(|counted| counted >= count)
    })
    .await;
    let ended = OffsetDateTime::now_utc();
    let most = services.iter().map(|service| service.memory().1).max().unwrap_or_default();
    for service in services {
        services::stop(service).await?;
    }
    let begin: OffsetDateTime = sqlx::query_scalar("SELECT min(processed_at) FROM processed_messages")
        .fetch_one(&database.pool)
        .await
        .context("when counting began")?;
    check(&database, messages).await?;
    let counted = Counted {
        per_second: count as f64 / (ended - begin).as_seconds_f64(),
        since_start_per_second: count as f64 / (ended - started).as_seconds_f64(),
        memory_mb: services::megabytes(most),
    };
    eprintln!("  {instances} activity-service: {:.0} messages/s", counted.per_second);
    Ok(counted)
}

/// The consumer's transactions, one after the other, with what they need in memory.
async fn by_loop(messages: &Messages) -> Result<f64> {
    let database = start().await;
    let topic = messages.topic.name.as_str();
    let mut connection = database.pool.acquire().await?;
    let begin = Instant::now();
    for batch in messages.all.chunks(BATCH) {
        let received: Vec<_> = batch
            .iter()
            .map(|one| Received { activity: &one.activity, topic, partition: one.partition, offset: one.offset })
            .collect();
        let mut ends = BTreeMap::new();
        ends.extend(batch.iter().map(|one| (one.partition, one.offset + 1)));
        let position = |(partition, next_offset)| PositionAfter {
            topic,
            partition,
            generation: 0,
            next_offset,
            digest: Digest::default(),
        };
        let positions: Vec<_> = ends.into_iter().map(position).collect();
        let mut transaction = connection.begin().await?;
        statistics::types(&mut *transaction).await?;
        statistics::count(&mut transaction, ZONE, &received, &positions).await?;
        transaction.commit().await?;
    }
    let per_second = messages.all.len() as f64 / begin.elapsed().as_secs_f64();
    drop(connection);
    eprintln!("  its SQL in a loop: {per_second:.0} messages/s");
    check(&database, messages).await?;
    Ok(per_second)
}

async fn start() -> Database {
    let database = Database::new(&MIGRATIONS).await;
    database.execute("CHECKPOINT").await;
    database
}

/// Every message is counted, by its id and its place; the figures are those of the messages; nothing
/// is in quarantine.
async fn check(database: &Database, messages: &Messages) -> Result<()> {
    let mut keys: Vec<topic::Place> =
        sqlx::query_as(r#"SELECT message_ref, partition, "offset" FROM processed_messages"#)
            .fetch_all(&database.pool)
            .await?;
    keys.sort_unstable();
    let mut sent: Vec<_> =
        messages.all.iter().map(|one| (one.activity.message_ref, one.partition, one.offset)).collect();
    sent.sort_unstable();
    ensure!(keys == sent, "{} messages were sent, {} are counted, or not the same ones", sent.len(), keys.len());

    let figures: Vec<(Date, String, i64)> = sqlx::query_as(
        "SELECT activity_date, activity_type_code, quantity FROM daily_activities
         ORDER BY activity_date, activity_type_code",
    )
    .fetch_all(&database.pool)
    .await?;
    let expected: Vec<_> = messages.by_day().into_iter().map(|((day, code), quantity)| (day, code, quantity)).collect();
    ensure!(figures == expected, "the figures are {figures:?} instead of {expected:?}");
    let kept = database.number("SELECT count(*) FROM quarantine").await;
    ensure!(kept == 0, "{kept} messages are in quarantine");
    Ok(())
}

//! Tells Kafka up to when everything is announced: the least of what the logs have stated that are not done.
//!
//! Nobody is elected. Each second the first instance that asks tells it, so that another one takes over a second
//! after the one before has died or was paused. What is told is durable first, and never goes back.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use fail::fail_point;
use rdkafka::{
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode,
    producer::{FutureProducer, FutureRecord, Producer},
};
use serde::Serialize;
use shared::runtime::{
    database::{Pool, within},
    health::TaskStatus,
    kafka,
    lifecycle::Shutdown,
};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::{
    ANSWER_WITHIN, SETTLES_WITHIN,
    counting::{self, Counts},
    until,
};
use crate::{
    instance::Instance,
    metrics::{self, ANNOUNCEMENTS, Outstanding},
    publisher::topic::Creation,
    settings::Settings,
};

/// After the full second: when the statements of [`super::Progress`] have come.
const ANNOUNCES_AFTER: Duration = SETTLES_WITHIN.saturating_add(Duration::from_millis(100));
/// What takes longer is out of date; partitions are asked for their ends one by one.
const ANNOUNCES_WITHIN: Duration = Duration::from_secs(30);
/// Minutes that are told in one go, each by an announcement of its own.
const MINUTES_AT_ONCE: usize = 100;
/// Short, because a stop waits for the thread that asks.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// What Kafka has not taken by then is out of date.
const DELIVERED_WITHIN: &str = "3000";

/// The topic may not be there any more. Nobody loses anything by another one: it tells how things stand.
const MAY_BE_GONE: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::UnknownTopic,
    RDKafkaErrorCode::UnknownPartition,
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::MessageTimedOut,
];

/// Of the topic. Whoever was away for a week still reads each minute.
const TOPIC: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "604800000")];

/// The background task that tells.
pub struct Announcer {
    pool: Pool,
    instance: Instance,
    producer: kafka::Renewed<FutureProducer<kafka::Quiet>>,
    creation: Creation,
    /// Who tells it.
    source: &'static str,
    /// Where it is told, and of which topic.
    topic: String,
    of_topic: String,
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The message, as the contract has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Announcement {
    source: &'static str,
    /// Every message of this time or earlier is acknowledged, or failed.
    #[serde(with = "time::serde::rfc3339")]
    announced_to: OffsetDateTime,
    topic: String,
    /// Nothing was written before; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    /// By partition an offset behind the last of them.
    ends: BTreeMap<i32, i64>,
    unannounced: i64,
    #[serde(with = "time::serde::rfc3339::option")]
    oldest_unannounced_at: Option<OffsetDateTime>,
    failed: i64,
    /// Those that operators gave up: written, and counted by nobody.
    discarded: i64,
    /// A minute that is closed, each told once, in order; nothing between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
}

/// What is told beside the moment.
struct Found {
    outstanding: Outstanding,
    since: Option<OffsetDateTime>,
    counts: Option<Counts>,
}

impl Announcer {
    /// # Errors
    /// librdkafka refuses its settings.
    pub fn new(config: &Settings, pool: Pool, instance: Instance) -> anyhow::Result<Self> {
        // One request at a time: what is told later stands behind what was told before.
        let own =
            [("message.timeout.ms", DELIVERED_WITHIN), ("max.in.flight.requests.per.connection", "1"), ("acks", "all")];
        let make = move |kafka: &kafka::Settings| {
            let mut config = kafka.client(&own);
            // Of the ends that it is asked for. Where a transaction of somebody else is open, what stands behind its
            // beginning would be left out.
            config.set("isolation.level", "read_uncommitted");
            let made = FutureProducer::from_config_and_context(&config, kafka::Quiet);
            made.context("librdkafka refuses the settings")
        };
        let creation = Creation::new(&config.kafka, config.topic.of_progress(), config.topic.properties(&TOPIC))?;
        Ok(Self {
            pool,
            instance,
            producer: kafka::Renewed::new(&config.kafka, make)?,
            creation,
            source: config.service.source,
            topic: config.topic.progress.clone(),
            of_topic: config.topic.name.clone(),
        })
    }

    /// Tells it until the drain begins.
    ///
    /// # Errors
    /// None: what fails is told by whoever is first a second later.
    pub async fn run(self, shutdown: Shutdown, status: TaskStatus) -> anyhow::Result<()> {
        if shutdown.unless_draining(self.creation.ensure(None, &status)).await.is_none() {
            return Ok(());
        }
        while shutdown.unless_draining(sleep(until(&self.instance, ANNOUNCES_AFTER))).await.is_some() {
            self.tell(&status).await;
        }
        Ok(())
    }

    /// Tells it until this instance has, or another one of the same database (`is_told`). False where the drain begins
    /// before.
    pub(crate) async fn tell_once(
        &self,
        is_told: impl AsyncFn() -> bool,
        shutdown: &Shutdown,
        status: &TaskStatus,
    ) -> bool {
        let by_this_one = async {
            self.creation.ensure(None, status).await;
            while !self.tell(status).await {
                sleep(until(&self.instance, ANNOUNCES_AFTER)).await;
            }
        };
        let by_another = async {
            while !is_told().await {
                sleep(until(&self.instance, ANNOUNCES_AFTER)).await;
            }
        };
        let told = async {
            tokio::select! {
                () = by_this_one => {}
                () = by_another => {}
            }
        };
        shutdown.unless_draining(told).await.is_some()
    }

    /// Whether it was told.
    async fn tell(&self, status: &TaskStatus) -> bool {
        match status.busy(ANNOUNCES_WITHIN, self.announce()).await {
            Ok(is_told) => {
                status.ok();
                ANNOUNCEMENTS.add(u64::from(is_told));
                is_told
            }
            Err(error) => {
                let error = format_args!("{error:#}");
                status.failing(error, "cannot tell how far everything is announced; trying again");
                false
            }
        }
    }

    /// Announces it, unless another instance does this time, or a new one came in between. Whether it did.
    async fn announce(&self) -> anyhow::Result<bool> {
        let Some(announced_to) = within(ANSWER_WITHIN, next(&self.pool)).await? else { return Ok(false) };
        let Some(Found { outstanding, since, counts }) = within(ANSWER_WITHIN, look(&self.pool, announced_to)).await?
        else {
            return Ok(false);
        };
        let mut announcement = Announcement {
            source: self.source,
            announced_to,
            topic: self.of_topic.clone(),
            since,
            ends: self.ends().await?,
            unannounced: outstanding.unpublished,
            oldest_unannounced_at: outstanding.oldest_unpublished_at,
            // One that is tried again has failed once, and what was told has passed it.
            failed: outstanding.failed + outstanding.retrying,
            discarded: outstanding.discarded,
            counts,
        };
        for _ in 0..MINUTES_AT_ONCE {
            self.send(&announcement).await?;
            fail_point!("announcer::told", |_| std::process::abort());
            let Some(counts) = &announcement.counts else { break };
            within(ANSWER_WITHIN, counting::told(&self.pool, counts)).await?;
            // Those of an outage: a day has 1440, and until they are told nobody sees what differs in them.
            announcement.counts = within(ANSWER_WITHIN, counting::next_closed(&self.pool, announced_to)).await?;
            if announcement.counts.is_none() {
                break;
            }
        }
        Ok(true)
    }

    async fn send(&self, announcement: &Announcement) -> anyhow::Result<()> {
        let value = serde_json::to_string(announcement).context("an announcement is JSON")?;
        // The partition that is read, however many somebody else has given the topic.
        let record = FutureRecord::to(&self.topic).partition(0).key(self.source).payload(&value);
        let sent = self.producer.now().send(record, Duration::ZERO).await;
        if let Err((error, _)) = sent {
            if MAY_BE_GONE.contains(&kafka::code(&error)) {
                self.creation.again().await;
            }
            return Err(error).context("kafka has not taken it");
        }
        Ok(())
    }

    /// Where the topic's partitions end. What is to be told was acknowledged before this is asked, by whatever
    /// process, so it stands before these; some that were sent since may as well.
    async fn ends(&self) -> anyhow::Result<BTreeMap<i32, i64>> {
        let (producer, topic) = (self.producer.now(), self.of_topic.clone());
        let ask = move || {
            let client = producer.client();
            let metadata = client.fetch_metadata(Some(&topic), ENDS_WITHIN).context("the partitions cannot be had")?;
            let there = metadata.topics().iter().filter(|topic| topic.error().is_none());
            // None where it is not there: whoever reads that counts nothing as complete.
            let partitions = there.flat_map(|topic| topic.partitions());
            partitions
                .map(|partition| {
                    let ends = client.fetch_watermarks(&topic, partition.id(), ENDS_WITHIN);
                    let (_, end) = ends.context("the end of a partition cannot be had")?;
                    Ok((partition.id(), end))
                })
                .collect()
        };
        tokio::task::spawn_blocking(ask).await.context("the question for the ends broke off")?
    }
}

/// What this instance is to tell now, committed before it is told; none where another one tells it this second.
async fn next(pool: &Pool) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    let next = sqlx::query_scalar!(
        r#"
        WITH mine AS MATERIALIZED (SELECT pg_try_advisory_xact_lock('announced'::regclass::oid::bigint) AS is_held),
        last AS (SELECT announced_to, told_at FROM announced ORDER BY announced_to DESC, told_at DESC LIMIT 1),
        now AS (SELECT greatest(announced_to(), (SELECT announced_to FROM last)) AS announced_to)
        INSERT INTO announced (announced_to)
        SELECT now.announced_to FROM now CROSS JOIN mine
        WHERE mine.is_held AND now.announced_to > '-infinity'
            AND NOT EXISTS (
                SELECT FROM last WHERE told_at BETWEEN clock_timestamp() - interval '700 milliseconds' AND clock_timestamp())
        RETURNING announced_to
        "#
    );
    next.fetch_optional(pool).await
}

/// A second look, with what is to be told committed: an identity that is not seen here reads it before its first
/// message gets a time, see `identity::take`. None where it does not hold any more.
async fn look(pool: &Pool, announced_to: OffsetDateTime) -> Result<Option<Found>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // Planned each time: a plan of when the outbox was small would read all of it, every second.
    sqlx::query!("SET LOCAL plan_cache_mode = force_custom_plan").execute(&mut *transaction).await?;
    let is_so = sqlx::query_scalar!(r#"SELECT coalesce(announced_to() >= $1, false) AS "is_so!""#, announced_to);
    if !is_so.fetch_one(&mut *transaction).await? {
        return transaction.rollback().await.map(|()| None);
    }
    let outstanding = metrics::outstanding(&mut transaction).await?;
    counting::count(&mut transaction).await?;
    let counts = counting::closed(&mut transaction, announced_to).await?;
    let since = sqlx::query_scalar!("SELECT since FROM told_counts").fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Some(Found { outstanding, since, counts }))
}

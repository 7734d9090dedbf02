//! Judges from outside, by SQL and a dump of the topics, whether each message is counted once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sqlx::PgPool;
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{Received, Topic, wait_until};

/// By day and type.
type Figures = BTreeMap<(Date, String), i64>;

/// What one consumer group makes of its topics.
#[derive(Clone, Debug)]
pub struct Recount {
    pub pool: PgPool,
    pub topics: Vec<Topic>,
    pub group: String,
}

#[derive(Debug, sqlx::FromRow)]
struct Key {
    message_ref: Uuid,
    activity_type_code: String,
    activity_at: OffsetDateTime,
    is_of_its_day: bool,
    topic: String,
    partition: i32,
    offset: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct Kept {
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    ce_type: Option<Vec<u8>>,
    reason: String,
    state: String,
}

type Place = (String, i32, i64);

impl Recount {
    /// Waits until Kafka knows that everything on the topics has been dealt with.
    pub async fn at_rest(&self, limit: Duration) {
        for topic in &self.topics {
            let ends = topic.ends().await;
            let (partitions, mut committed) = (i32::try_from(ends.len()).unwrap(), Vec::new());
            wait_until(&format!("the group has read {} up to {ends:?}", topic.name), limit, async || {
                // A question to Kafka costs a client of its own.
                let positions = self.positions().await;
                let at = |partition| positions.get(&(topic.name.clone(), partition)).copied().unwrap_or(0);
                if !(0..).zip(&ends).all(|(partition, end)| at(partition) >= *end) {
                    return false;
                }
                committed = topic.committed(&self.group, partitions).await;
                committed.iter().zip(&ends).all(|(committed, end)| *committed.max(&0) == *end)
            })
            .await;
        }
    }

    /// I8: each message before an offset that Kafka keeps is counted or in quarantine.
    ///
    /// # Panics
    /// One is not.
    pub async fn no_offset_passes_the_database(&self) {
        for topic in &self.topics {
            let partitions = i32::try_from(topic.ends().await.len()).unwrap();
            // Kafka first: the database only ever knows more.
            let committed = topic.committed(&self.group, partitions).await;
            let positions = self.positions().await;
            let (keys, kept) = (self.keys().await, self.kept().await);
            let refs: BTreeSet<_> = keys.iter().map(|key| key.message_ref).collect();
            let kept: BTreeSet<_> = kept.iter().map(Kept::place).collect();
            for (partition, committed) in (0..).zip(&committed) {
                let position = positions.get(&(topic.name.clone(), partition)).copied().unwrap_or(0);
                assert!(*committed <= position, "I8: {committed} is committed of {partition}, {position} is counted");
            }
            for message in topic.dump().await {
                let committed = committed[usize::try_from(message.partition).unwrap()];
                let is_done = message.message_ref().is_some_and(|found| refs.contains(&found))
                    || kept.contains(&place(topic, &message));
                assert!(is_done || message.offset >= committed, "I8: {committed} is committed, and not {message:?}");
            }
        }
    }

    /// I7, again and again as long as `work` takes: in each snapshot the figures are the keys'.
    ///
    /// # Panics
    /// They are not, or there was nothing to look at.
    pub async fn while_the_figures_agree<T>(&self, work: impl Future<Output = T>) -> T {
        let go_on = AtomicBool::new(true);
        let looking = async {
            let mut totals = BTreeSet::new();
            while go_on.load(Ordering::Relaxed) {
                // Where Postgres is away there is nothing to see.
                if let Ok((figures, keys)) = self.snapshot().await {
                    assert_eq!(figures, keys, "I7: the figures, and the keys by day and type");
                    let total = figures.values().sum::<i64>();
                    assert!(totals.last().is_none_or(|last| *last <= total), "counted again: {totals:?}, {total}");
                    totals.insert(total);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(totals.len() > 2, "counting was not seen: {totals:?}");
        };
        let working = async {
            let done = work.await;
            go_on.store(false, Ordering::Relaxed);
            done
        };
        tokio::join!(looking, working).1
    }

    /// Figures and keys of one snapshot, asked for one after the other.
    async fn snapshot(&self) -> Result<(Figures, Figures), sqlx::Error> {
        let mut transaction = self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let figures: Vec<(Date, String, i64)> =
            sqlx::query_as("SELECT activity_date, activity_type_code, quantity FROM daily_activities")
                .fetch_all(&mut *transaction)
                .await?;
        // Time for another batch.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let keys: Vec<(Date, String, i64)> =
            sqlx::query_as("SELECT activity_date, activity_type_code, count(*) FROM processed_messages GROUP BY 1, 2")
                .fetch_all(&mut *transaction)
                .await?;
        transaction.rollback().await?;
        let figures_of = |rows: Vec<_>| rows.into_iter().map(|(day, code, quantity)| ((day, code), quantity)).collect();
        Ok((figures_of(figures), figures_of(keys)))
    }

    /// Everything, once nothing is on its way any more.
    ///
    /// # Panics
    /// Something that is promised does not hold. Tells everything that does not.
    pub async fn judge(&self) {
        self.judge_figures().await;
        self.judge_messages().await;
    }

    /// As [`Recount::judge`], of the figures and the offsets only.
    ///
    /// # Panics
    /// As there.
    pub async fn judge_figures(&self) {
        let (figures, keys) = self.snapshot().await.unwrap();
        assert_eq!(figures, keys, "I7: the figures, and the keys by day and type");
        self.no_offset_passes_the_database().await;
    }

    /// As [`Recount::judge`], where keys were purged whose figures stay.
    ///
    /// # Panics
    /// As there.
    pub async fn judge_messages(&self) {
        self.no_offset_passes_the_database().await;
        let mut wrong = Vec::new();
        let (mut on_topics, mut begin) = (HashMap::new(), HashMap::new());
        for topic in &self.topics {
            for (partition, (low, _)) in (0..).zip(topic.watermarks().await) {
                begin.insert((topic.name.clone(), partition), low);
            }
            for message in topic.dump().await {
                on_topics.insert(place(topic, &message), message);
            }
        }
        let (keys, kept) = (self.keys().await, self.kept().await);
        let refs: BTreeSet<_> = keys.iter().map(|key| key.message_ref).collect();
        let waiting: BTreeSet<_> = kept.iter().filter(|one| one.state != "counted").map(Kept::place).collect();
        for (place, message) in &on_topics {
            let is_counted = message.message_ref().is_some_and(|found| refs.contains(&found));
            if is_counted == waiting.contains(place) {
                let both = if is_counted { "counted and in quarantine" } else { "neither counted nor in quarantine" };
                wrong.push(format!("I6: {both}: {place:?} {message:?}"));
            }
        }
        // What the broker has deleted can be compared with nothing.
        let can_be_read = |(topic, partition, offset): &Place| {
            begin.get(&(topic.clone(), *partition)).is_none_or(|low| low <= offset)
        };
        let keys = keys.iter().filter(|key| can_be_read(&key.place()));
        let kept = kept.iter().filter(|one| can_be_read(&one.place()));
        let unfounded = keys.filter(|key| !on_topics.get(&key.place()).is_some_and(|message| key.is_of(message)));
        wrong.extend(unfounded.map(|key| format!("I6: the key is not that of its message: {key:?}")));
        let altered = kept.filter(|one| !on_topics.get(&one.place()).is_some_and(|message| one.is_of(message)));
        wrong.extend(
            altered.map(|one| format!("I6: {} is not in quarantine as it came: {:?}", one.reason, one.place())),
        );
        let count = wrong.len();
        wrong.truncate(20);
        assert!(wrong.is_empty(), "{count} promises broken, {} messages:\n{}", on_topics.len(), wrong.join("\n"));
    }

    async fn positions(&self) -> BTreeMap<(String, i32), i64> {
        let rows: Vec<(String, i32, i64)> =
            sqlx::query_as("SELECT topic, partition, next_offset FROM consumer_positions")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        rows.into_iter().map(|(topic, partition, next)| ((topic, partition), next)).collect()
    }

    async fn keys(&self) -> Vec<Key> {
        sqlx::query_as(
            r#"
            SELECT message_ref, activity_type_code, activity_at, topic, partition, "offset",
                activity_date = (activity_at AT TIME ZONE time_zone)::date AS is_of_its_day
            FROM processed_messages, business_calendar
            "#,
        )
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn kept(&self) -> Vec<Kept> {
        sqlx::query_as(r#"SELECT topic, partition, "offset", key, value, ce_type, reason, state FROM quarantine"#)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }
}

fn place(topic: &Topic, message: &Received) -> Place {
    (topic.name.clone(), message.partition, message.offset)
}

impl Key {
    fn place(&self) -> Place {
        (self.topic.clone(), self.partition, self.offset)
    }

    fn is_of(&self, message: &Received) -> bool {
        let at = message.text("activityAt").and_then(|at| OffsetDateTime::parse(&at, &Rfc3339).ok());
        // Postgres keeps microseconds.
        let is_near = at.is_some_and(|at| (at - self.activity_at).abs() < time::Duration::MICROSECOND);
        message.message_ref() == Some(self.message_ref)
            && message.text("activityTypeCode").as_ref() == Some(&self.activity_type_code)
            && is_near
            && self.is_of_its_day
    }
}

impl Kept {
    fn place(&self) -> Place {
        (self.topic.clone(), self.partition, self.offset)
    }

    fn is_of(&self, message: &Received) -> bool {
        let ce_type = message.headers.iter().find(|(name, _)| name == "ce_type").and_then(|(_, value)| value.as_ref());
        self.key == message.key && self.value == message.value && self.ce_type.as_ref() == ce_type
    }
}

//! Judges from outside, by SQL and a dump of the topics, whether each message is counted once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use sqlx::PgPool;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::{Received, Topic, wait_until};

/// By day or hour, and type.
type Figures = BTreeMap<(String, String), i64>;

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
    quarantine_id: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    ce_type: Option<Vec<u8>>,
    message_ref: Option<Uuid>,
    /// In place of key, value and type, where only that was kept.
    value_sha256: Option<Vec<u8>>,
    /// What was counted in its place.
    corrected_value: Option<Vec<u8>>,
    reason: String,
    state: String,
}

/// Where a message in quarantine stands beside its own place.
#[derive(Debug, sqlx::FromRow)]
struct Copies {
    quarantine_id: Uuid,
    topic: String,
    partition: i32,
    last_offset: i64,
    messages: i64,
}

type Place = (String, i32, i64);

/// What is in quarantine.
struct Quarantine {
    kept: Vec<Kept>,
    copies: HashMap<Uuid, Vec<Copies>>,
    by_value: HashMap<Vec<u8>, Vec<usize>>,
}

impl Quarantine {
    fn new(kept: Vec<Kept>, all_copies: Vec<Copies>) -> Self {
        let (mut copies, mut by_value): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = (HashMap::new(), HashMap::new());
        for one in all_copies {
            copies.entry(one.quarantine_id).or_default().push(one);
        }
        for (index, one) in kept.iter().enumerate() {
            let hash = one.value_sha256.clone().unwrap_or_else(|| sha256(one.value.as_deref()));
            by_value.entry(hash).or_default().push(index);
        }
        Self { kept, copies, by_value }
    }

    fn copies_of(&self, one: &Kept) -> &[Copies] {
        self.copies.get(&one.quarantine_id).map(Vec::as_slice).unwrap_or_default()
    }

    /// The row of a message, where that tells of its place.
    fn find(&self, place: &Place, message: &Received) -> Option<&Kept> {
        let mut rows = self.by_value.get(&sha256(message.value.as_deref()))?.iter().map(|index| &self.kept[*index]);
        rows.find(|one| {
            let is_copy = |copies: &Copies| {
                (&copies.topic, copies.partition) == (&place.0, place.1) && place.2 <= copies.last_offset
            };
            one.place() == *place && one.came_as(message)
                || one.is_same(message) && self.copies_of(one).iter().any(is_copy)
        })
    }
}

impl Quarantine {
    /// The message with the bytes that were counted.
    fn as_counted(found: Option<&Kept>, message: &Received) -> Received {
        let corrected = found.and_then(|one| one.corrected_value.clone());
        Received { value: corrected.or_else(|| message.value.clone()), ..message.clone() }
    }
}

impl Recount {
    /// Waits until Kafka knows that everything on the topics has been dealt with.
    pub async fn at_rest(&self, limit: Duration) {
        for topic in &self.topics {
            let ends = topic.ends().await;
            let (partitions, begun) = (i32::try_from(ends.len()).unwrap(), Instant::now());
            // A question to Kafka costs a client of its own, so the database is asked first.
            wait_until(&format!("{} is read up to {ends:?}", topic.name), limit, async || {
                let positions = self.positions().await;
                let at = |partition| positions.get(&(topic.name.clone(), partition)).copied().unwrap_or(0);
                (0..).zip(&ends).all(|(partition, end)| at(partition) >= *end)
            })
            .await;
            let left = limit.saturating_sub(begun.elapsed());
            wait_until(&format!("Kafka knows that {} is read up to {ends:?}", topic.name), left, async || {
                let committed = topic.committed(&self.group, partitions).await;
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
            let (keys, quarantine) = (self.keys().await, self.quarantine().await);
            let refs: BTreeSet<_> = keys.iter().map(|key| key.message_ref).collect();
            for (partition, committed) in (0..).zip(&committed) {
                let position = positions.get(&(topic.name.clone(), partition)).copied().unwrap_or(0);
                assert!(*committed <= position, "I8: {committed} is committed of {partition}, {position} is counted");
            }
            for message in topic.dump().await {
                let committed = committed[usize::try_from(message.partition).unwrap()];
                let is_done = message.message_ref().is_some_and(|found| refs.contains(&found))
                    || quarantine.find(&place(topic, &message), &message).is_some();
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
        let figures = "SELECT activity_date::text, activity_type_code, quantity FROM daily_activities
            UNION ALL SELECT hour::text, activity_type_code, sum(quantity)::bigint FROM hourly_activity_shards GROUP BY 1, 2";
        let figures: Vec<(String, String, i64)> = sqlx::query_as(figures).fetch_all(&mut *transaction).await?;
        // Time for another batch.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let keys = "SELECT activity_date::text, activity_type_code, count(*) FROM processed_messages GROUP BY 1, 2
            UNION ALL SELECT date_trunc('hour', activity_at, 'UTC')::text, activity_type_code, count(*)
            FROM processed_messages GROUP BY 1, 2";
        let keys: Vec<(String, String, i64)> = sqlx::query_as(keys).fetch_all(&mut *transaction).await?;
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
        let (keys, quarantine) = (self.keys().await, self.quarantine().await);
        let refs: HashMap<_, _> = keys.iter().map(|key| (key.message_ref, key)).collect();
        let mut copies: HashMap<(Uuid, &str, i32), i64> = HashMap::new();
        for (place, message) in &on_topics {
            let found = quarantine.find(place, message);
            let message = &Quarantine::as_counted(found, message);
            let key = message.message_ref().and_then(|found| refs.get(&found));
            let is_counted = key.is_some_and(|key| key.is_of(message));
            if let Some(one) = found.filter(|one| one.place() != *place) {
                *copies.entry((one.quarantine_id, &place.0, place.1)).or_default() += 1;
            }
            if is_counted == found.is_some_and(|one| one.state != "counted") {
                let both = if is_counted { "counted and in quarantine" } else { "neither counted nor in quarantine" };
                wrong.push(format!("I6: {both}: {place:?} {message:?}"));
            }
        }
        // What the broker has deleted can be compared with nothing.
        let can_be_read = |(topic, partition, offset): &Place| {
            begin.get(&(topic.clone(), *partition)).is_none_or(|low| low <= offset)
        };
        let keys = keys.iter().filter(|key| can_be_read(&key.place()));
        let kept = quarantine.kept.iter().filter(|one| can_be_read(&one.place()));
        let is_founded = |place: &Place, key: &Key| {
            let message = on_topics.get(place);
            message.is_some_and(|one| key.is_of(&Quarantine::as_counted(quarantine.find(place, one), one)))
        };
        let unfounded = keys.filter(|key| !is_founded(&key.place(), key));
        wrong.extend(unfounded.map(|key| format!("I6: the key is not that of its message: {key:?}")));
        let altered = kept.filter(|one| !on_topics.get(&one.place()).is_some_and(|message| one.came_as(message)));
        wrong.extend(
            altered.map(|one| format!("I6: {} is not in quarantine as it came: {:?}", one.reason, one.place())),
        );
        let noted =
            quarantine.copies.values().flatten().filter(|one| can_be_read(&(one.topic.clone(), one.partition, 0)));
        let miscounted = noted.filter(|one| {
            copies.get(&(one.quarantine_id, &one.topic, one.partition)).copied().unwrap_or(0) != one.messages
        });
        wrong.extend(miscounted.map(|one| format!("I6: there are not so many copies: {one:?}")));
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

    async fn quarantine(&self) -> Quarantine {
        let kept = r#"SELECT quarantine_id, topic, partition, "offset", key, value, ce_type, message_ref, value_sha256,
                corrected_value, reason, state FROM quarantine"#;
        let kept = sqlx::query_as(kept).fetch_all(&self.pool).await.unwrap();
        let copies = "SELECT quarantine_id, topic, partition, last_offset, messages FROM quarantine_copies";
        Quarantine::new(kept, sqlx::query_as(copies).fetch_all(&self.pool).await.unwrap())
    }
}

fn sha256(value: Option<&[u8]>) -> Vec<u8> {
    Sha256::digest(value.unwrap_or_default()).to_vec()
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

    fn came_as(&self, message: &Received) -> bool {
        let ce_type = message.headers.iter().find(|(name, _)| name == "ce_type").and_then(|(_, value)| value.as_ref());
        let is_whole = self.key == message.key && self.value == message.value && self.ce_type.as_ref() == ce_type;
        is_whole || self.has_hash_of(message)
    }

    /// Whether it is this message, sent again.
    fn is_same(&self, message: &Received) -> bool {
        let is_read = self.message_ref.is_some() && message.message_ref() == self.message_ref;
        let is_same_value = self.value == message.value || self.has_hash_of(message);
        self.came_as(message) || is_read && is_same_value
    }

    fn has_hash_of(&self, message: &Received) -> bool {
        self.value_sha256.as_ref().is_some_and(|hash| *hash == sha256(message.value.as_deref()))
    }
}

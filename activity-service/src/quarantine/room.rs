//! How much of what cannot be counted is kept with its bytes: a flood of bad messages must not fill the database
//! that counts the good ones.
//!
//! Beyond the bound a row has place, hash and reason, and the topic has the bytes. What there is is measured now
//! and then, only while messages are kept, and what this instance adds meanwhile is added; other instances
//! can exceed the bound by what they keep in that time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::runtime::config::Reader;
use sqlx::PgConnection;

use super::{Content, Kept};

/// How old a measurement may be. It reads as many rows as are permitted, some 50 ms of 100,000.
const MEASURED_EVERY: Duration = Duration::from_secs(5);

/// What the messages of one topic may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rows: u32,
    pub bytes: u64,
}

impl Limits {
    pub fn read(settings: &mut Reader) -> Self {
        Self {
            rows: settings.within("quarantine.max_rows", ..=10_000_000, "at most 10000000"),
            bytes: 1_000_000 * u64::from(settings.get::<u32>("quarantine.max_megabytes")),
        }
    }
}

#[derive(Debug)]
pub struct Room {
    limits: Limits,
    topics: Mutex<HashMap<String, Taken>>,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    at: Instant,
    rows: u64,
    bytes: u64,
}

impl Room {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, topics: Mutex::default() }
    }

    /// What is to be kept of each message. A transaction that is rolled back leaves too little room, until it is
    /// measured again.
    ///
    /// # Errors
    /// As Postgres answers. The transaction is lost then.
    pub(super) async fn fit<'a>(
        &self,
        transaction: &mut PgConnection,
        messages: &[&Kept<'a>],
    ) -> Result<Vec<Content<'a>>, sqlx::Error> {
        for one in messages {
            let topic = one.place.topic;
            let known = self.topics().get(topic).is_some_and(|taken| taken.at.elapsed() < MEASURED_EVERY);
            if !known {
                let taken = self.measure(&mut *transaction, topic).await?;
                self.topics().insert(topic.to_owned(), taken);
            }
        }
        let mut topics = self.topics();
        let fitting = messages.iter().map(|one| {
            // Measured above; nobody forgets one.
            let Some(taken) = topics.get_mut(one.place.topic) else { return one.content };
            let bytes = one.content.bytes();
            if taken.rows >= u64::from(self.limits.rows) || taken.bytes + bytes > self.limits.bytes {
                return one.content.without_bytes();
            }
            taken.rows += 1;
            taken.bytes += bytes;
            one.content
        });
        Ok(fitting.collect())
    }

    async fn measure(&self, transaction: &mut PgConnection, topic: &str) -> Result<Taken, sqlx::Error> {
        let found = sqlx::query!(
            r#"
            SELECT count(*) AS "rows!", coalesce(sum(bytes), 0)::bigint AS "bytes!" FROM (
                -- the length of a bytea is known without reading it
                SELECT coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0)
                    + coalesce(octet_length(ce_type), 0) + coalesce(octet_length(headers), 0) AS bytes
                FROM quarantine WHERE topic = $1 AND value_sha256 IS NULL LIMIT $2
            ) AS bounded
            "#,
            topic,
            i64::from(self.limits.rows)
        );
        let found = found.fetch_one(transaction).await?;
        Ok(Taken { at: Instant::now(), rows: found.rows.unsigned_abs(), bytes: found.bytes.unsigned_abs() })
    }

    fn topics(&self) -> std::sync::MutexGuard<'_, HashMap<String, Taken>> {
        // Numbers only: whatever panicked has left them whole.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

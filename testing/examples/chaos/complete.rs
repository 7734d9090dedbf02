//! I10: a `completeTo` that was told is true, and never goes back. Somebody asks all the while, and holds each answer against both
//! databases: what was written at or before that moment is counted or in quarantine. Nothing fails here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::PgPool;
use testing::Client;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

const EVERY: Duration = Duration::from_millis(200);

/// What was told.
#[derive(Debug, Default)]
pub struct Told {
    /// Different moments.
    pub moments: u64,
    /// Answers without one, and questions without an answer.
    pub unknown: u64,
    pub wrong: Vec<String>,
}

pub struct Witness {
    client: Client,
    orders: PgPool,
    activity: PgPool,
}

impl Witness {
    /// `client` asks the instances that run.
    pub fn new(client: Client, orders: PgPool, activity: PgPool) -> Self {
        Self { client, orders, activity }
    }

    pub async fn ask_while(self, go_on: Arc<AtomicBool>) -> Told {
        let mut told = Told::default();
        let mut last = None;
        while go_on.load(Ordering::Relaxed) {
            tokio::time::sleep(EVERY).await;
            let Some(to) = complete_to(&self.client).await else {
                told.unknown += 1;
                continue;
            };
            if last == Some(to) {
                continue;
            }
            if let Some(last) = last.filter(|last| *last > to) {
                told.wrong.push(format!("I10: {last} was told, and {to} after it"));
            }
            // Each moment is checked up to, from the one before on: that one was.
            let from = last.filter(|last| *last < to).unwrap_or(OffsetDateTime::UNIX_EPOCH);
            match self.missing(from, to).await {
                Ok(missing) => {
                    told.moments += 1;
                    told.wrong.extend(missing.iter().map(|one| format!("I10: {to} was told, {one} was not counted")));
                    last = Some(to);
                }
                // Postgres is away: the next answer covers it.
                Err(_) => told.unknown += 1,
            }
        }
        told
    }

    /// What was written after `from` and not after `to`, and is nowhere.
    async fn missing(&self, from: OffsetDateTime, to: OffsetDateTime) -> Result<Vec<Uuid>, sqlx::Error> {
        // What is counted first: what is counted while the other is read does not excuse it.
        let (mut counted, mut orders) = (self.activity.acquire().await?, self.orders.acquire().await?);
        let known: Vec<Uuid> = sqlx::query_scalar(
            "SELECT message_ref FROM processed_messages WHERE activity_at > $1 AND activity_at <= $2
             UNION ALL SELECT message_ref FROM quarantine WHERE message_ref IS NOT NULL",
        )
        .bind(from)
        .bind(to)
        .fetch_all(&mut *counted)
        .await?;
        let missing = "SELECT message_ref FROM outbox WHERE activity_at > $1 AND activity_at <= $2
            AND NOT (message_ref = ANY ($3))";
        sqlx::query_scalar(missing).bind(from).bind(to).bind(known).fetch_all(&mut *orders).await
    }
}

/// What an instance that runs tells.
async fn complete_to(client: &Client) -> Option<OffsetDateTime> {
    let answer = client.ask(reqwest::Method::GET, "/completeness", &[], Vec::new()).await.ok()?;
    OffsetDateTime::parse(answer.body["completeTo"].as_str()?, &Rfc3339).ok()
}

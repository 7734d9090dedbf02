//! Which messages of the quarantine are meant, and the way through them: page by page, the oldest first, each once.

use serde::{Deserialize, Serialize};
use shared::{contract::message::ActivityTypeCode, runtime::database::Pool, web::paging::Cursor};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Reason;
use crate::key;

/// As many are counted to say how many are left; one more means more.
const COUNTED_UP_TO: i64 = 10_000;

/// Whatever is not given is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub id: Option<Uuid>,
    pub reason: Option<Reason>,
    pub code: Option<ActivityTypeCode>,
    pub topic: Option<String>,
    /// The first moment at which it may have been received, and the first at which not any more.
    pub from: Option<OffsetDateTime>,
    pub to: Option<OffsetDateTime>,
}

impl Filter {
    #[must_use]
    pub fn one(id: Uuid) -> Self {
        Self { id: Some(id), ..Self::default() }
    }

    /// What a cursor is bound to.
    #[must_use]
    pub fn key(&self) -> impl Serialize + use<> {
        let micros = |at: OffsetDateTime| at.unix_timestamp_nanos() / 1000;
        (
            self.reason.map(Reason::as_str),
            self.code.as_ref().map(|code| code.as_str().to_owned()),
            self.topic.clone(),
            self.from.map(micros),
            self.to.map(micros),
        )
    }
}

/// Behind which message a page begins: when it was received, in microseconds since 1970, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After(pub i64, pub Uuid);

impl After {
    pub const NONE: Self = Self(i64::MIN, Uuid::nil());

    #[must_use]
    pub fn of(received_at: OffsetDateTime, id: Uuid) -> Self {
        // Postgres keeps microseconds, and none of its times is out of reach.
        Self(i64::try_from(received_at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX), id)
    }

    /// None before the first.
    #[must_use]
    pub fn time(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).ok()
    }
}

/// A way through the waiting messages of a filter.
#[derive(Clone, Debug)]
pub struct Pass {
    pub filter: Filter,
    after: After,
    is_over: bool,
}

/// One of a page.
#[derive(Clone, Copy, Debug)]
pub struct PageEntry {
    pub id: Uuid,
    pub received_at: OffsetDateTime,
    /// Of its value.
    pub bytes: i64,
}

impl Pass {
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, after: After::NONE, is_over: false }
    }

    /// Goes on where a cursor says. None where that is of another filter, or no cursor.
    #[must_use]
    pub fn resumed(filter: Filter, cursor: &str) -> Option<Self> {
        let after = Cursor::decode(cursor, &filter.key())?;
        Some(Self { filter, after, is_over: false })
    }

    /// Where it stands, for whoever goes on later. None at the end.
    #[must_use]
    pub fn cursor(&self) -> Option<String> {
        (!self.is_over).then(|| Cursor::encode(&self.after, &self.filter.key()))
    }

    /// The next `limit` of those that wait; it stands before them until told where it got to.
    ///
    /// # Errors
    /// The database's.
    pub async fn look(&self, pool: &Pool, limit: i64) -> Result<Vec<PageEntry>, sqlx::Error> {
        if self.is_over {
            return Ok(Vec::new());
        }
        let mut transaction = pool.begin().await?;
        key::plan_with_values(&mut transaction).await?;
        let found = waiting(&mut transaction, &self.filter, self.after, limit).await?;
        transaction.commit().await?;
        Ok(found)
    }

    pub fn got_to(&mut self, last: Option<&PageEntry>) {
        match last {
            Some(last) => self.after = After::of(last.received_at, last.id),
            None => self.is_over = true,
        }
    }

    /// How many messages of the filter are still ahead; 10,001 means more than 10,000.
    ///
    /// # Errors
    /// The database's.
    pub async fn left(&self, pool: &Pool) -> Result<u64, sqlx::Error> {
        self.look(pool, COUNTED_UP_TO + 1).await.map(|found| found.len() as u64)
    }
}

async fn waiting(
    transaction: &mut PgConnection,
    filter: &Filter,
    after: After,
    limit: i64,
) -> Result<Vec<PageEntry>, sqlx::Error> {
    let found = sqlx::query_as!(
        PageEntry,
        r#"
        SELECT quarantine_id AS id, received_at, coalesce(octet_length(value), 0)::bigint AS "bytes!" FROM quarantine
        WHERE state = 'waiting'
            -- planned with these values: those that are null are gone, and one of the indexes fits the others
            AND ($1::timestamptz IS NULL OR (received_at, quarantine_id) > ($1, $2))
            AND ($3::text IS NULL OR reason_code = $3)
            AND ($4::text IS NULL OR activity_type_code = $4)
            AND ($5::text IS NULL OR topic = $5)
            AND ($6::timestamptz IS NULL OR received_at >= $6)
            AND ($7::timestamptz IS NULL OR received_at < $7)
            AND ($8::uuid IS NULL OR quarantine_id = $8)
        ORDER BY received_at, quarantine_id LIMIT $9
        "#,
        after.time(),
        after.1,
        filter.reason.map(Reason::as_str),
        filter.code.as_ref().map(ActivityTypeCode::as_str),
        filter.topic.as_deref(),
        filter.from,
        filter.to,
        filter.id,
        limit,
    );
    found.fetch_all(transaction).await
}

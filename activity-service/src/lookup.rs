//! What became of one message: where and when it was counted, where else it stands, and its quarantine.

use serde::Serialize;
use shared::{contract::message::ActivityTypeCode, runtime::database::Pool};
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    key,
    quarantine::{Entry, listing},
    statistics::iso_date,
};

/// As many copies and entries are told: a sender may repeat itself without end.
const TOLD: i64 = 100;

/// What is known of a reference.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Activity)]
pub struct Lookup {
    pub message_ref: Uuid,
    /// Missing where no message of this reference was counted, or its key was purged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted: Option<CountedActivity>,
    /// What waits or waited in quarantine under this reference, the oldest first, at most 100.
    pub quarantined: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountedActivity {
    #[schema(value_type = ActivityTypeCode)]
    pub activity_type_code: String,
    #[serde(with = "time::serde::rfc3339")]
    pub activity_at: OffsetDateTime,
    /// The day it was counted for.
    #[serde(with = "iso_date")]
    pub activity_date: Date,
    #[serde(with = "time::serde::rfc3339")]
    pub counted_at: OffsetDateTime,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Where else it stands: the last place in each partition, at most 100.
    pub copies: Vec<CopyOfMessage>,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CopyOfMessage {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// None where nothing is known of it.
///
/// # Errors
/// The database's.
pub async fn find(pool: &Pool, message_ref: Uuid) -> Result<Option<Lookup>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    // One partition of the keys is read, and no other is locked.
    key::plan_with_values(&mut transaction).await?;
    let key = sqlx::query!(
        r#"
        SELECT activity_type_code, activity_at, activity_date, processed_at, topic, partition, "offset"
        FROM processed_messages WHERE message_ref = $1 AND undated = $2
        "#,
        message_ref,
        key::day(message_ref).is_none()
    );
    let key = key.fetch_optional(&mut *transaction).await?;
    let copies = sqlx::query_as!(
        CopyOfMessage,
        r#"SELECT topic, partition, "offset" FROM message_copies WHERE message_ref = $1
        ORDER BY topic, partition LIMIT $2"#,
        message_ref,
        TOLD
    );
    let copies = copies.fetch_all(&mut *transaction).await?;
    transaction.commit().await?;
    let quarantined = listing::of_message(pool, message_ref, TOLD).await?;
    let counted = key.map(|key| CountedActivity {
        activity_type_code: key.activity_type_code,
        activity_at: key.activity_at,
        activity_date: key.activity_date,
        counted_at: key.processed_at,
        topic: key.topic,
        partition: key.partition,
        offset: key.offset,
        copies,
    });
    let is_known = counted.is_some() || !quarantined.is_empty();
    Ok(is_known.then_some(Lookup { message_ref, counted, quarantined }))
}

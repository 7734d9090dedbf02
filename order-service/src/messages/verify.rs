//! Holds a span of the outbox against the topic, both ways: what is announced there and unknown here, as after a
//! database has lost its last transactions; and what is published here and does not stand there, as after Kafka has.
//! Reads only, a page of each at a time, beside a service that runs.

mod topic;

use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

use outbox::rebroadcast::Span;
use serde::Serialize;
use shared::runtime::{database::Pool, terminal};
use time::OffsetDateTime;
pub use topic::{Reader, Record};
use uuid::Uuid;

/// Messages of one question.
const PAGE: usize = 2000;
/// How often it is told how far it has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How far the clocks of the database and of Kafka may differ.
const CLOCKS_DIFFER_BY: time::Duration = time::Duration::hours(1);

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Messages of the span on the topic, copies included.
    pub on_topic: u64,
    /// Of these unknown to the outbox.
    pub unknown: u64,
    /// Messages of the span that are published as far as the outbox knows.
    pub published: u64,
    /// Of these not where they should stand on the topic.
    pub missing: u64,
    /// Of these at offsets that the topic has deleted by its retention: nobody can tell any more.
    pub deleted: u64,
    /// Messages of the span that are not published, or failed.
    pub not_published: u64,
}

impl Found {
    /// Whether outbox and topic tell of the same messages.
    #[must_use]
    pub fn agree(&self) -> bool {
        self.unknown == 0 && self.missing == 0
    }
}

/// A message of the outbox, and where it should stand.
struct Known {
    message_ref: Uuid,
    placed_at: Option<OffsetDateTime>,
    place: Option<(i32, i64)>,
}

/// Compares, and writes a line for each difference.
///
/// # Errors
/// The span begins before the outbox does; the database or no broker answers.
pub async fn compare(pool: &Pool, reader: &Reader, span: Span, differences: &mut impl Write) -> anyhow::Result<Found> {
    if let Some(first) = first_day(pool).await? {
        anyhow::ensure!(span.from >= first, "the outbox has messages from {first} on only: begin the span there");
    }
    let mut found = Found::default();
    let firsts = from_outbox(pool, reader, span, &mut found, differences).await?;
    from_topic(pool, reader, (span, firsts), &mut found, differences).await?;
    Ok(found)
}

/// Reads the topic from the beginning of the span to what is its end now: a message can be announced late. `firsts` are the
/// first offsets of the span that are known.
async fn from_topic(
    pool: &Pool,
    reader: &Reader,
    (span, firsts): (Span, BTreeMap<i32, i64>),
    found: &mut Found,
    differences: &mut impl Write,
) -> anyhow::Result<()> {
    let mut records = reader.since(span.from - CLOCKS_DIFFER_BY, firsts);
    let (mut batch, mut progress) = (Vec::with_capacity(PAGE), Progress::of("on the topic"));
    loop {
        let record = records.recv().await.transpose()?;
        let is_last = record.is_none();
        batch.extend(record.filter(|record| (span.from..span.to).contains(&record.activity_at)));
        if batch.len() >= PAGE || is_last {
            found.on_topic += batch.len() as u64;
            for record in unknown(pool, &batch).await? {
                found.unknown += 1;
                let Record { message_ref, partition, offset, .. } = record;
                writeln!(differences, "unknown {message_ref} {partition}:{offset}")?;
            }
            batch.clear();
        }
        progress.print(found.on_topic);
        if is_last {
            return Ok(());
        }
    }
}

/// Reads the span of the outbox, and of the topic the places where its messages should stand; the first of them of each
/// partition.
async fn from_outbox(
    pool: &Pool,
    reader: &Reader,
    span: Span,
    found: &mut Found,
    differences: &mut impl Write,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let (mut firsts, mut progress) = (BTreeMap::new(), Progress::of("in the outbox"));
    let mut after = first_reference(pool, span.from - time::Duration::hours(25)).await?;
    loop {
        let page = page(pool, after, span).await?;
        let Some(last) = page.last() else { return Ok(firsts) };
        after = last.message_ref;
        let mut wanted: BTreeMap<i32, BTreeMap<i64, Uuid>> = BTreeMap::new();
        for one in page.iter().filter(|one| one.placed_at.is_some()) {
            match one.place {
                Some((partition, offset)) => {
                    found.published += 1;
                    firsts.entry(partition).and_modify(|first: &mut i64| *first = offset.min(*first)).or_insert(offset);
                    wanted.entry(partition).or_default().insert(offset, one.message_ref);
                }
                None => found.not_published += 1,
            }
        }
        let missing = reader.without(wanted).await?;
        found.deleted += missing.deleted;
        for (partition, offset, message_ref) in missing.places {
            found.missing += 1;
            writeln!(differences, "missing {message_ref} {partition}:{offset}")?;
        }
        progress.print(found.published + found.not_published);
    }
}

/// Those of the records whose reference the outbox does not know.
async fn unknown<'a>(pool: &Pool, records: &'a [Record]) -> Result<Vec<&'a Record>, sqlx::Error> {
    let references: Vec<Uuid> = records.iter().map(|record| record.message_ref).collect();
    let unknown = sqlx::query_scalar!(
        r#"
        SELECT one AS "unknown!" FROM UNNEST($1::uuid[]) AS one
        -- OFFSET: asked for each message, not joined to all there are.
        WHERE NOT EXISTS (SELECT FROM outbox m WHERE m.message_ref = one OFFSET 0)
            AND NOT EXISTS (SELECT FROM rejected_messages r WHERE r.message_ref = one OFFSET 0)
        "#,
        &references
    );
    let unknown: std::collections::BTreeSet<_> = unknown.fetch_all(pool).await?.into_iter().collect();
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    // Looked at behind the question: nobody can tell any more of a day that was dropped meanwhile, nor of a reference that
    // was drawn on a day before those that are kept, just before the message was written.
    let kept_from = match first_day(pool).await? {
        Some(day) => first_reference(pool, day).await?,
        None => Uuid::nil(),
    };
    let is_unknown = |one: &&Record| one.message_ref >= kept_from && unknown.contains(&one.message_ref);
    Ok(records.iter().filter(is_unknown).collect())
}

/// The next page of references. Those that are not of the span have no time.
async fn page(pool: &Pool, after: Uuid, span: Span) -> Result<Vec<Known>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"
        SELECT page.message_ref, CASE WHEN page.activity_at >= $2 AND page.activity_at < $3 THEN page.activity_at END AS placed_at,
            place.partition, place."offset"
        FROM (
            -- Whatever its time is: a page costs the same wherever the span begins.
            SELECT message_ref, activity_at FROM outbox
            -- A reference is drawn before the message is written, and kept for a day at most while the outcome of that
            -- is unknown.
            WHERE message_ref > $1 AND message_ref < first_reference($3::timestamptz + interval '1 hour')
            ORDER BY message_ref LIMIT $4
        ) AS page
        LEFT JOIN LATERAL (
            SELECT m.partition, m."offset" FROM outbox_messages m
            WHERE m.message_ref = page.message_ref AND page.activity_at >= $2 AND page.activity_at < $3
            OFFSET 0
        ) AS place ON true
        ORDER BY page.message_ref
        "#,
        after,
        span.from,
        span.to,
        i64::try_from(PAGE).expect("it is small")
    );
    let known = rows.fetch_all(pool).await?.into_iter().map(|row| Known {
        message_ref: row.message_ref,
        placed_at: row.placed_at,
        place: row.partition.zip(row.offset),
    });
    Ok(known.collect())
}

async fn first_reference(pool: &Pool, at: OffsetDateTime) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT first_reference($1) AS "reference!""#, at).fetch_one(pool).await
}

/// The beginning of the oldest day that was not dropped; what is older is unknown because of that.
async fn first_day(pool: &Pool) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"
        SELECT min(to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC')
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'outbox'::regclass AND c.relname ~ '^outbox_[0-9]{8}$'
        "#
    )
    .fetch_one(pool)
    .await
}

/// Says on standard error how far it has come.
struct Progress {
    of: &'static str,
    told: Instant,
}

impl Progress {
    fn of(of: &'static str) -> Self {
        Self { of, told: Instant::now() }
    }

    fn print(&mut self, count: u64) {
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            terminal::complain(format_args!("{count} messages {} compared", self.of));
        }
    }
}

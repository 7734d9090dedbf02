//! The door for a service that writes its rows in a transaction: they and the message that tells of them are committed
//! together, or nothing is. It is done by tasks, not by whoever asks: a handler that is dropped leaves nothing half known.
//!
//! The message is written first. An attempt that is repeated, because the answer to an earlier one was lost, waits there for
//! the end of that one, and learns what became of it before it writes anything else.

use std::{fmt, sync::Arc, time::Duration};

use fail::fail_point;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use shared::{
    contract::message::ActivityTypeCode,
    runtime::{config::Reader, database::Pool, health::TaskStatus, traces::TraceContext},
    web::http::DATABASE_PATIENCE,
};
use sqlx::{Connection, postgres::PgConnection};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    announcement::{Announcement, Written},
    instance,
    line::{self, LineReceiver, LineSender, WorkItem},
    message::{self, Content},
    outcome::{Earlier, Outcome, Repeatable, committed_before, until_known},
    queue::Queue,
};

/// The most that key and fields may have, in bytes: a queue full of such messages is 160 MB.
const MOST_BYTES: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub struct Settings {
    pub tasks: u32,
    pub waiting_line: u32,
}

impl Settings {
    pub fn read(s: &mut Reader) -> Self {
        Self {
            tasks: s.within("transactions.tasks", 1..=64, "from 1 to 64"),
            waiting_line: s.within("transactions.waiting_line", 1..=1_000_000, "from 1 to 1000000"),
        }
    }
}

/// What is to be told. Its reference and its time are drawn for it: the time is the database's, never earlier than what was
/// told to be complete.
#[derive(Clone, Debug)]
pub struct Activity {
    code: ActivityTypeCode,
    content: Content,
    trace: TraceContext,
}

/// Why something cannot be told so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ActivityError {
    #[error("messageRef, activityTypeCode and activityAt are every message's own: give such a field another name")]
    NameTaken,
    #[error("key and fields have more than 16384 bytes together: tell less, and what is meant by a reference")]
    TooLong,
}

impl Activity {
    /// An activity of this type. Those of one `key` share a partition of the topic; `fields` stand in the value beside what
    /// every message has.
    ///
    /// # Errors
    /// See [`ActivityError`].
    pub fn new(
        code: ActivityTypeCode,
        key: &str,
        fields: &Map<String, Value>,
        trace: TraceContext,
    ) -> Result<Self, ActivityError> {
        let fields = message::stored(fields).ok_or(ActivityError::NameTaken)?;
        if key.len() + fields.len() > MOST_BYTES {
            return Err(ActivityError::TooLong);
        }
        Ok(Self { code, content: Content::Given { key: key.to_owned(), fields }, trace })
    }
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub message_ref: Uuid,
    pub activity_at: OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub enum TransactError {
    /// Too much is waiting, or the database did not answer in time. In the latter case it may still be done.
    #[error("nothing can be written now")]
    Unavailable,
    #[error("the database refused it")]
    Refused(#[source] Arc<sqlx::Error>),
}

type TransactAnswer = Result<Option<Told>, TransactError>;
type Rows =
    dyn for<'c> Fn(&'c mut PgConnection, OffsetDateTime) -> BoxFuture<'c, Result<bool, sqlx::Error>> + Send + Sync;

struct Work {
    activity: Activity,
    rows: Box<Rows>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("activity", &self.activity).finish_non_exhaustive()
    }
}

/// The handlers' end.
#[derive(Clone, Debug)]
pub struct Transactions(LineSender<Work, TransactAnswer>);

impl Transactions {
    /// Writes what `rows` writes, and that `activity` happened, in one transaction. `rows` is given the activity's time. It
    /// may be called again, when an attempt came to nothing, and has three seconds; its errors are the database's. False from
    /// it: there is nothing to tell, and nothing is written.
    ///
    /// # Errors
    /// See [`TransactError`]; within [`DATABASE_PATIENCE`].
    pub async fn transact<F>(&self, activity: Activity, rows: F) -> TransactAnswer
    where
        F: for<'c> Fn(&'c mut PgConnection, OffsetDateTime) -> BoxFuture<'c, Result<bool, sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        let work = Work { activity, rows: Box::new(rows) };
        let answer = self.0.ask(work, Instant::now() + DATABASE_PATIENCE).await;
        answer.unwrap_or(Err(TransactError::Unavailable))
    }
}

/// The other end: what the tasks share that carry the transactions out.
#[derive(Clone, Debug)]
pub struct Transactor {
    waiting: LineReceiver<Work, TransactAnswer>,
    pool: Pool,
    queue: Queue,
}

/// A line, and the task at its end; run it `transactions.tasks` times.
#[must_use]
pub fn line(settings: &Settings, pool: Pool, queue: Queue) -> (Transactions, Transactor) {
    let (sender, waiting) = line::line(settings.waiting_line, Duration::ZERO);
    (Transactions(sender), Transactor { waiting, pool, queue })
}

impl Transactor {
    /// Carries out what is waiting, one by one, until every handler is gone.
    ///
    /// # Errors
    /// None: a failure is answered to whoever waits.
    pub async fn run(self, status: TaskStatus) -> anyhow::Result<()> {
        let mut next = Vec::with_capacity(1);
        while let Some(_under_way) = self.waiting.next(&mut next, 1).await {
            if let Some(WorkItem { work, reply, .. }) = next.pop() {
                reply.send(self.carry_out(work, &status).await);
            }
        }
        Ok(())
    }

    async fn carry_out(&self, work: Work, status: &TaskStatus) -> TransactAnswer {
        let Work { activity: Activity { code, content, trace }, rows } = work;
        let announcement = Announcement::new(trace, &self.queue.log(), &self.queue);
        let queue = self.queue.clone();
        let mut transaction = Attempted { code, content, rows, announcement, queue };
        let outcome = until_known(&self.pool, &mut transaction, Earlier::DidNothing, status).await;
        let Attempted { code, content, announcement, .. } = transaction;
        match outcome {
            Outcome::Done { done: Some(written), .. } => {
                fail_point!("transaction::committed", |_| std::process::abort());
                let told = Told { message_ref: announcement.message_ref, activity_at: written.activity_at };
                announcement.committed(code.as_str(), content, written, &self.queue);
                fail_point!("transaction::announced", |_| std::process::abort());
                Ok(Some(told))
            }
            Outcome::Done { done: None, .. } => {
                announcement.absent();
                Ok(None)
            }
            Outcome::NotSent => {
                announcement.absent();
                Err(TransactError::Unavailable)
            }
            Outcome::Refused { earlier: Earlier::MayHaveDone, .. } => {
                // That it is refused now does not tell what became of it before.
                self.queue.instance().doubt();
                Err(TransactError::Unavailable)
            }
            Outcome::Refused { error, earlier: Earlier::DidNothing } => {
                announcement.absent();
                Err(TransactError::Refused(error))
            }
        }
    }
}

/// A transaction that is attempted until its outcome is known.
struct Attempted {
    code: ActivityTypeCode,
    content: Content,
    rows: Box<Rows>,
    announcement: Announcement,
    queue: Queue,
}

impl Repeatable for Attempted {
    /// The message; none where there is nothing to tell.
    type Done = Option<Written>;

    async fn attempt(&self, connection: &mut PgConnection, _: Earlier) -> Result<Option<Self::Done>, sqlx::Error> {
        fail_point!("transaction::before", |_| std::process::abort());
        // Whatever the role's default is: an older snapshot would not see the end of the identity.
        let mut transaction = connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let Some(written) = self.write(&mut transaction).await? else {
            transaction.rollback().await?;
            if instance::has_ended(connection, self.announcement.ticket.log.log.id).await.map_err(committed_before)? {
                return Ok(None);
            }
            // An earlier attempt has written it, and all that belongs to it.
            let before = self.written_before(connection).await.map_err(committed_before)?;
            return before.map(|written| Some(Some(written))).ok_or(sqlx::Error::RowNotFound);
        };
        if !(self.rows)(&mut transaction, written.activity_at).await? {
            transaction.rollback().await?;
            return Ok(Some(None));
        }
        fail_point!("transaction::uncommitted", |_| std::process::abort());
        // Where the service has passed over an error, COMMIT would roll back and say nothing. This fails then.
        sqlx::query("SELECT pg_current_xact_id()").execute(&mut *transaction).await?;
        transaction.commit().await?;
        fail_point!("transaction::answer_lost", |_| Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        Ok(Some(Some(written)))
    }

    async fn renew(&mut self) {
        self.queue.instance().replaced(self.announcement.ticket.log.log.id).await;
        self.announcement.renew(&self.queue.log(), &self.queue);
    }
}

impl Attempted {
    /// Writes the message, unless the identity has ended or the message is there. Waits for an earlier attempt of unknown
    /// outcome.
    async fn write(&self, transaction: &mut PgConnection) -> Result<Option<Written>, sqlx::Error> {
        let (number, version, key, fields) = self.content.columns();
        let written = sqlx::query_as!(
            Written,
            r#"
            INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at,
                format, key, fields, traceparent, tracestate)
            SELECT $1, $2, $3, $4, $5, $6, greatest(now(), $7), $8, $9, $10, $11, $12
            -- The fence: whoever adopts the log of an ended identity has to know all that is in it.
            FROM instances WHERE instance_id = $2 AND ended_at IS NULL
            ON CONFLICT (message_ref) DO NOTHING
            RETURNING instance AS log, seq, activity_at
            "#,
            self.announcement.message_ref,
            self.announcement.ticket.log.log.id.number(),
            self.announcement.ticket.seq,
            number,
            version,
            self.code.as_str(),
            self.announcement.ticket.not_before,
            self.content.format(),
            key,
            fields,
            self.announcement.trace.parent,
            self.announcement.trace.state
        );
        written.fetch_optional(transaction).await
    }

    async fn written_before(&self, connection: &mut PgConnection) -> Result<Option<Written>, sqlx::Error> {
        sqlx::query_as!(
            Written,
            "SELECT instance AS log, seq, activity_at FROM outbox WHERE message_ref = $1",
            self.announcement.message_ref
        )
        .fetch_optional(connection)
        .await
    }
}

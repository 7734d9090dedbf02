//! Completing and cancelling an order: its status, its version, the message that tells of it and the row that says
//! who did it change in one statement, which is one transaction. No status leads out of the two that an order ends in,
//! so of several changes at once one does something, and none does it twice.

use std::{sync::Arc, time::Duration};

use fail::fail_point;
use outbox::{
    announcement::{Announcement, Written},
    instance,
    line::{self, LineReceiver, LineSender, WorkItem},
    message::Content,
    outcome::{Earlier, Outcome, Repeatable, committed_before, until_known},
    queue::Queue,
};
use shared::{
    contract::customer::CustomerRef,
    operators::audit::{Action, Author},
    runtime::{database::Pool, health::TaskStatus, traces::TraceContext},
    web::http::DATABASE_PATIENCE,
};
use sqlx::postgres::PgConnection;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{config, format::FORMAT, metrics::CHANGED, order::OrderRef};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Complete,
    Cancel,
}

impl Change {
    /// The status it leads to.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::Complete => "Fulfilled",
            Self::Cancel => "Cancelled",
        }
    }

    fn activity_type_code(self) -> &'static str {
        match self {
            Self::Complete => "ORDER_COMPLETED",
            Self::Cancel => "ORDER_CANCELLED",
        }
    }

    fn action(self) -> Action {
        match self {
            Self::Complete => Action::OrderCompleted,
            Self::Cancel => Action::OrderCancelled,
        }
    }
}

/// What a caller wants.
#[derive(Debug)]
pub struct ChangeRequest {
    pub change: Change,
    pub order_ref: OrderRef,
    /// Where it is set, only an order of this customer's is changed.
    pub customer_ref: Option<CustomerRef>,
    pub trace: TraceContext,
    pub author: Author,
}

#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The order may still be changed.
    #[error("orders cannot be changed now")]
    Unavailable,
    #[error("the database refused the change")]
    Refused(#[source] Arc<sqlx::Error>),
}

type ChangeAnswer = Result<(), ChangeError>;

/// The handlers' end of the line.
#[derive(Clone, Debug)]
pub struct Changes(LineSender<ChangeRequest, ChangeAnswer>);

impl Changes {
    /// Changes the order, if it is there and can be changed. Afterwards its status tells what
    /// became of it: once an order has ended, nothing changes it any more.
    ///
    /// # Errors
    /// See [`ChangeError`]; within [`DATABASE_PATIENCE`].
    pub async fn make(&self, request: ChangeRequest) -> ChangeAnswer {
        let deadline = Instant::now() + DATABASE_PATIENCE;
        self.0.ask(request, deadline).await.unwrap_or(Err(ChangeError::Unavailable))
    }
}

/// The other end: what the tasks share that make the changes.
#[derive(Clone, Debug)]
pub struct Changer {
    waiting: LineReceiver<ChangeRequest, ChangeAnswer>,
    pool: Pool,
    queue: Queue,
}

/// A line, and the task at its end; run it `changes.tasks` times.
#[must_use]
pub fn line(settings: &config::ChangesSettings, pool: Pool, queue: Queue) -> (Changes, Changer) {
    let (sender, waiting) = line::line(settings.waiting_line, Duration::ZERO);
    (Changes(sender), Changer { waiting, pool, queue })
}

impl Changer {
    /// Makes the changes that are waiting, one by one, until every handler is gone. One that waits for
    /// another one of the same order holds up nothing but its task.
    ///
    /// # Errors
    /// None: a failure is answered to whoever waits.
    pub async fn run(self, status: TaskStatus) -> anyhow::Result<()> {
        let mut next = Vec::with_capacity(1);
        while let Some(_under_way) = self.waiting.next(&mut next, 1).await {
            if let Some(WorkItem { work, reply, .. }) = next.pop() {
                reply.send(self.make(work, &status).await);
            }
        }
        Ok(())
    }

    async fn make(&self, request: ChangeRequest, status: &TaskStatus) -> ChangeAnswer {
        let ChangeRequest { change, order_ref, customer_ref, trace, author } = request;
        let announcement = Announcement::new(trace, &self.queue.log(), &self.queue);
        let queue = self.queue.clone();
        let mut statement = Statement { change, order_ref, customer_ref, announcement, author, queue };
        let outcome = until_known(&self.pool, &mut statement, Earlier::DidNothing, status).await;
        let Statement { announcement, .. } = statement;
        match outcome {
            Outcome::Done { done: Some(Changed { log, seq, order_id, order_version, activity_at }), .. } => {
                CHANGED.add_of(change.activity_type_code(), 1);
                fail_point!("change::committed", |_| std::process::abort());
                let content = Content::Thing { number: order_id, version: order_version };
                let written = Written { log, seq, activity_at };
                announcement.committed(change.activity_type_code(), content, written, &self.queue);
                fail_point!("change::announced", |_| std::process::abort());
                Ok(())
            }
            Outcome::Done { done: None, .. } => {
                announcement.absent();
                Ok(())
            }
            Outcome::NotSent => {
                announcement.absent();
                Err(ChangeError::Unavailable)
            }
            Outcome::Refused { earlier: Earlier::MayHaveDone, .. } => {
                // That it is refused now does not tell what became of it before.
                self.queue.instance().doubt();
                Err(ChangeError::Unavailable)
            }
            Outcome::Refused { error, earlier: Earlier::DidNothing } => {
                announcement.absent();
                Err(ChangeError::Refused(error))
            }
        }
    }
}

/// The message, as the statement has written it.
struct Changed {
    log: i64,
    seq: i64,
    order_id: i64,
    order_version: i32,
    activity_at: OffsetDateTime,
}

#[derive(Debug)]
struct Statement {
    change: Change,
    order_ref: OrderRef,
    customer_ref: Option<CustomerRef>,
    announcement: Announcement,
    author: Author,
    queue: Queue,
}

impl Repeatable for Statement {
    /// The message, where this changed the order.
    type Done = Option<Changed>;

    async fn attempt(
        &self,
        connection: &mut PgConnection,
        earlier: Earlier,
    ) -> Result<Option<Self::Done>, sqlx::Error> {
        fail_point!("change::before", |_| std::process::abort());
        let mut row = self.change(connection).await?;
        if row.is_none() {
            let log = self.announcement.ticket.log.log.id;
            if instance::has_ended(connection, log).await.map_err(committed_before)? {
                return Ok(None);
            }
            if earlier == Earlier::MayHaveDone {
                row = self.changed_before(connection).await.map_err(committed_before)?;
            }
        }
        fail_point!("change::answer_lost", |_| Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        Ok(Some(row))
    }

    async fn renew(&mut self) {
        self.queue.instance().replaced(self.announcement.ticket.log.log.id).await;
        self.announcement.renew(&self.queue.log(), &self.queue);
    }
}

impl Statement {
    /// `fetch_all`, because it returns only after the commit.
    async fn change(&self, connection: &mut PgConnection) -> Result<Option<Changed>, sqlx::Error> {
        let rows = sqlx::query_as!(
            Changed,
            r#"
            WITH changed AS (
                -- Waits for whoever is changing it, an earlier attempt of unknown outcome included, and
                -- then looks at what that one has left.
                UPDATE orders SET status = $3, version = version + 1
                WHERE order_id = $1 AND ($2::text IS NULL OR customer_ref = $2)
                    AND status IN ('New', 'Pending', 'Placed')
                    -- The fence: whoever adopts the log of an ended identity has to know all that is in it.
                    AND EXISTS (SELECT FROM instances WHERE instance_id = $6 AND ended_at IS NULL)
                    AND current_setting('transaction_isolation') = 'read committed'
                RETURNING order_id, version
            ), audited AS (
                INSERT INTO audit (actor, via, action, subject, request_id)
                SELECT $11, $12, $13, order_ref(order_id), $14 FROM changed
            )
            INSERT INTO outbox (message_ref, instance, seq, order_id, order_version, activity_type_code, activity_at,
                format, traceparent, tracestate)
            SELECT $4, $6, $7, order_id, version, $5, greatest(now(), $15), $8, $9, $10 FROM changed
            RETURNING instance AS log, seq, order_id, order_version, activity_at
            "#,
            self.order_ref.number(),
            self.customer_ref.as_ref().map(CustomerRef::as_str),
            self.change.status(),
            self.announcement.message_ref,
            self.change.activity_type_code(),
            self.announcement.ticket.log.log.id.number(),
            self.announcement.ticket.seq,
            FORMAT,
            self.announcement.trace.parent,
            self.announcement.trace.state,
            self.author.actor,
            self.author.via,
            self.change.action().as_str(),
            self.author.request_id,
            self.announcement.ticket.not_before
        )
        .fetch_all(connection)
        .await?;
        Ok(rows.into_iter().next())
    }

    /// The row that an earlier attempt has written. Asked after [`Self::change`], which has waited for
    /// that attempt: what is not there now never will be.
    async fn changed_before(&self, connection: &mut PgConnection) -> Result<Option<Changed>, sqlx::Error> {
        sqlx::query_as!(
            Changed,
            "SELECT instance AS log, seq, order_id, order_version, activity_at FROM outbox WHERE message_ref = $1",
            self.announcement.message_ref
        )
        .fetch_optional(connection)
        .await
    }
}

//! A message before its row is written: what the statement needs to write it, and what has to be done
//! once the outcome is known.

use std::sync::Arc;

use shared::runtime::traces::TraceContext;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    log::own::{OwnLog, Ticket},
    message::{Content, Message},
    queue::{Origin, Queue, Source},
};

#[derive(Debug)]
pub struct Announcement {
    /// Kept through every repetition of the statement.
    pub message_ref: Uuid,
    pub trace: TraceContext,
    pub ticket: Ticket,
}

/// What the statement tells of a row that it, or an earlier attempt, has written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub log: i64,
    pub seq: i64,
    pub activity_at: OffsetDateTime,
}

impl Announcement {
    /// Draws a place in `log`, with room in the queue, if there is any now.
    #[must_use]
    pub fn new(trace: TraceContext, log: &Arc<OwnLog>, queue: &Queue) -> Self {
        Self { message_ref: queue.instance().reference(), trace, ticket: log.draw(queue.try_slot()) }
    }

    /// As it is, under the identity of now. The place before is in a log that has ended: whoever adopts
    /// that log finds out whether anything is there.
    pub fn renew(&mut self, log: &Arc<OwnLog>, queue: &Queue) {
        self.ticket = log.draw(queue.try_slot());
    }

    /// The row is committed: lets the message into the queue, or leaves it to the log it stands in.
    pub fn committed(self, activity_type_code: &str, content: Content, written: Written, queue: &Queue) {
        let Self { message_ref, trace, ticket } = self;
        let Written { log, seq, activity_at } = written;
        if (log, seq) != (ticket.log.log.id.number(), ticket.seq) {
            // By an earlier attempt, under an identity that has ended since.
            return ticket.absent();
        }
        let log = Arc::clone(&ticket.log);
        let own = Arc::clone(&log.log);
        if let Some(slot) = ticket.committed() {
            if queue.has_a_turn(&content) {
                return log.read_apart(seq);
            }
            let message = Message {
                message_ref,
                log: own.id,
                seq,
                format: content.format(),
                content,
                activity_type_code: activity_type_code.to_owned(),
                activity_at,
                trace,
                failures: 0,
            };
            queue.push(message, own.id, Source::Log(own), slot, Origin::Placed);
        }
    }

    /// The row was not written, and never will be.
    pub fn absent(self) {
        self.ticket.absent();
    }
}

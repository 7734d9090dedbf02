//! A message before its row is written: what the statement needs to write it, and what has to be done
//! once it is committed.

use shared::traces::TraceContext;
use uuid::Uuid;

use crate::{
    instance::{InstanceId, NOBODY},
    outbox::Message,
    queue::{Origin, Queue, Slot},
};

#[derive(Debug)]
pub struct Announcement {
    /// Kept through every repetition of the statement.
    pub message_ref: Uuid,
    /// Whose the row will be: nobody's without room in the queue.
    pub owner: InstanceId,
    pub trace: TraceContext,
    slot: Option<Slot>,
}

impl Announcement {
    /// Takes room in the queue, if there is any now.
    #[must_use]
    pub fn new(trace: TraceContext, queue: &Queue) -> Self {
        let slot = queue.try_slot();
        let owner = if slot.is_some() { queue.owner() } else { NOBODY };
        Self { message_ref: Uuid::now_v7(), owner, trace, slot }
    }

    /// The row is committed and has this `owner` now: lets the message into the queue.
    pub fn committed(self, message: Message, owner: InstanceId, queue: &Queue) {
        match self.slot {
            Some(slot) if owner == self.owner => queue.push(message, owner, slot, Origin::Placed),
            // Its answer was late: the row is in the memory of whoever has claimed it since.
            Some(_) => {}
            None => queue.overflow(),
        }
    }
}

//! An order on its way through the task: what its row is made of, and who waits for the answer.

use outbox::{announcement::Announcement, line::Reply};

use super::{PlaceAnswer, PlaceError};
use crate::{idempotency::Key, order::NewOrder};

#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) announcement: Announcement,
    pub(super) order: NewOrder,
    pub(super) key: Option<Key>,
    pub(super) reply: Reply<PlaceAnswer>,
}

impl Accepted {
    /// It was not placed, and will not be.
    pub(super) fn refuse(self, why: PlaceError) {
        self.announcement.absent();
        self.reply.send(Err(why));
    }
}

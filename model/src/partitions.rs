//! What is old goes with its partition.
//!
//! Whether anything in it is unsettled is asked with the partition's own lock in hand, which waits for
//! every placement that has written into it. One that comes later finds no partition, and the order of
//! the message by its idempotency key.
//!
//! Marks go after the rows they are about. They also carry `settled_to`: without them, a row that stayed
//! would be unsettled again.

use crate::{Bug, Mark, Phase, Protocol, State};

impl Protocol {
    pub(crate) fn drop_rows(&self, next: &mut State, m: usize) -> Option<()> {
        (next.faults.drops < self.limits.drops).then_some(())?;
        next.faults.drops += 1;
        let unsettled = next.is_unsettled(m) && !self.has(Bug::DropEarly);
        let message = &mut next.messages[m];
        let written = message.attempts.iter().flatten().any(|one| matches!(one.phase, Phase::Waiting | Phase::Written));
        let row = message.row.as_mut().filter(|row| !row.dropped && !unsettled && !written)?;
        row.dropped = true;
        Some(())
    }

    pub(crate) fn drop_marks(&self, next: &mut State, m: usize) -> Option<()> {
        let message = &next.messages[m];
        let (row, marked) = (message.row?, matches!(message.mark, Mark::Settling(_)));
        let settled = row.seq < next.settled_to(row.log);
        (marked && (row.dropped || (self.has(Bug::DropMarksEarly) && settled))).then_some(())?;
        next.messages[m].mark = Mark::Dropped;
        Some(())
    }
}

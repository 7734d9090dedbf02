//! The log a writer writes, and the cursor that reads it.
//!
//! Everything below the cursor was taken into memory, or will be by whoever waits for its answer; nothing
//! above it was. So the writer needs no marks, and takes nothing twice. This rests on three rules. A
//! ticket has a slot only where the cursor stands at the end, and takes the cursor along. A page leaves
//! out what is under way when the cursor moves past it: everything else there is committed or absent
//! for good, so that it does not matter when the page is read, or how often. What commits behind the
//! cursor without a slot is read by itself.

use crate::{Bug, LOG_LENGTH, Placing, Protocol, Set, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnLog {
    /// The number of the next ticket.
    pub next: u8,
    /// Below `next`: behind, no ticket has a slot.
    pub cursor: u8,
    pub under_way: Set,
    /// Known not to have been committed.
    pub absent: Set,
    /// Committed behind the cursor.
    pub late: Set,
    /// The messages on a page whose answer is on its way.
    pub page: Option<Set>,
}

impl Protocol {
    /// `OwnLog::draw`.
    pub(crate) fn draw(&self, own: &mut OwnLog, slot: bool) -> Option<u8> {
        let caught_up = own.cursor == own.next;
        (!slot || caught_up || self.has(Bug::Overtake)).then_some(())?;
        let seq = own.next;
        assert!(usize::from(seq) < LOG_LENGTH, "a log is longer than the limits allow");
        own.next += 1;
        if slot && caught_up {
            own.cursor = own.next;
        }
        own.under_way.insert(seq);
        Some(seq)
    }

    /// `Ticket::committed`, of a ticket of the current identity. What belongs to one that has ended
    /// stays out: whoever adopts its log sends it.
    pub(crate) fn committed(&self, next: &mut State, p: usize, m: usize, placing: Placing) {
        let own = &mut next.processes[p].own;
        own.under_way.remove(placing.seq);
        if placing.slot {
            next.push(p, m);
        } else if placing.seq < own.cursor && !self.has(Bug::ForgetLate) {
            own.late.insert(placing.seq);
        }
    }

    pub(crate) fn next_page(&self, next: &mut State, p: usize, whole: bool) -> Option<()> {
        let own = &next.process(p)?.own;
        let mut end = if whole { own.next } else { own.cursor + 1 };
        if self.has(Bug::CursorWaits) {
            let waits = own.under_way.iter().find(|seq| *seq >= usize::from(own.cursor));
            end = waits.and_then(|seq| u8::try_from(seq).ok()).map_or(end, |seq| seq.min(end));
        }
        let one = own.cursor + 1 == own.next;
        (own.page.is_none() && own.cursor < end && end <= own.next && (whole || !one)).then_some(())?;
        let passed: Set = (own.cursor.into()..end.into()).collect();
        let left_out = if self.has(Bug::PageOfUnderWay) { Set::EMPTY } else { own.under_way };
        next.processes[p].own.cursor = end;
        next.read_own(p, passed.without(left_out));
        Some(())
    }

    pub(crate) fn late_page(&self, next: &mut State, p: usize) -> Option<()> {
        let own = &mut next.process(p)?.own;
        own.page.is_none().then_some(())?;
        if self.has(Bug::ReloadBySelect) {
            let id = own_id(next, p);
            let unsettled = next.of_log(id).iter().filter(|m| next.is_unsettled(*m)).collect();
            next.processes[p].own.page = Some(unsettled);
            return Some(());
        }
        (!own.late.is_empty()).then_some(())?;
        let late = std::mem::take(&mut own.late);
        next.read_own(p, late);
        Some(())
    }

    /// The same numbers are read again, whatever has become of the cursor, and the same rows are there:
    /// nothing changes. What had been left out is late by now, or is going to be.
    pub(crate) fn lose_own_page(&self, next: &mut State, p: usize) -> Option<()> {
        (self.has(Bug::CursorGoesBack) && next.faults.lost_answers < self.limits.lost_answers).then_some(())?;
        next.faults.lost_answers += 1;
        let page = next.process(p)?.own.page.take()?;
        next.processes[p].own.cursor = page.iter().filter_map(|m| Some(next.messages[m].row?.seq)).min()?;
        Some(())
    }

    pub(crate) fn page_read(next: &mut State, p: usize) -> Option<()> {
        let page = next.process(p)?.own.page.take()?;
        page.iter().for_each(|m| next.push(p, m));
        Some(())
    }
}

impl OwnLog {
    pub(crate) fn absent(&mut self, seq: u8) {
        self.under_way.remove(seq);
        self.absent.insert(seq);
    }
}

impl State {
    fn read_own(&mut self, p: usize, seqs: Set) {
        if !seqs.is_empty() {
            let id = own_id(self, p);
            self.processes[p].own.page = Some(seqs.iter().filter_map(|seq| self.at(id, seq)).collect());
        }
    }
}

fn own_id(state: &State, p: usize) -> usize {
    state.processes[p].id.into()
}

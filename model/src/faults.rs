//! What goes wrong, and how often it may.

use crate::{Life, Phase, Protocol, Set, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub kills: u8,
    pub pauses: u8,
    pub lost_sessions: u8,
    /// Of placements, marks, adoptions and pages.
    pub lost_answers: u8,
    /// Placements that the database refuses.
    pub aborts: u8,
    /// Messages that the broker refuses for good.
    pub refusals: u8,
    pub doubts: u8,
    /// Partitions of the outbox that go: no fault, but bounded like one.
    pub drops: u8,
}

impl Protocol {
    pub(crate) fn kill(&self, next: &mut State, p: usize) -> Option<()> {
        (next.faults.kills < self.limits.kills && next.processes[p].life != Life::Dead).then_some(())?;
        next.faults.kills += 1;
        let process = &mut next.processes[p];
        for m in process.in_flight.iter() {
            next.messages[m].ghost = true;
        }
        for m in process.in_flight.union(process.delivered).iter() {
            next.messages[m].excused = true;
        }
        process.life = Life::Dead;
        process.locked = false;
        process.confirmed = false;
        process.forget();
        process.in_flight = Set::EMPTY;
        process.delivered = Set::EMPTY;
        process.refused = Set::EMPTY;
        // Its placements go on, and nobody waits for them.
        for m in (0..self.messages).filter(|m| self.writers[*m] == p) {
            let message = &mut next.messages[m];
            message.placing = None;
            let goes_on = |one: &crate::Attempt| !matches!(one.phase, Phase::Answered(_));
            message.attempts = message.attempts.map(|one| one.filter(goes_on).map(crate::Attempt::forgotten));
        }
        Some(())
    }

    pub(crate) fn pause(&self, next: &mut State, p: usize) -> Option<()> {
        (next.faults.pauses < self.limits.pauses).then_some(())?;
        next.process(p)?.life = Life::Paused;
        next.faults.pauses += 1;
        Some(())
    }

    pub(crate) fn wake(next: &mut State, p: usize) -> Option<()> {
        let process = &mut next.processes[p];
        (process.life == Life::Paused).then(|| process.life = Life::Running)
    }

    pub(crate) fn lose_session(&self, next: &mut State, p: usize) -> Option<()> {
        (next.faults.lost_sessions < self.limits.lost_sessions).then_some(())?;
        let process = &mut next.processes[p];
        std::mem::take(&mut process.locked).then_some(())?;
        process.seen_free = Set::EMPTY;
        next.faults.lost_sessions += 1;
        Some(())
    }
}

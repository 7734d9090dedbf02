//! Identities: held, lost, ended, replaced.
//!
//! A held lock is the proof of life, and no clock decides. Hours may pass between any two steps here; the
//! one thing known of time is that `takeover_after`, between two looks, is longer than any
//! confirmation is trusted.

use crate::{Adoption, Bug, Life, OwnLog, Protocol, Set, State};

impl Protocol {
    pub(crate) fn expire(next: &mut State, p: usize) -> Option<()> {
        let process = &mut next.processes[p];
        (process.confirmed && !process.locked).then(|| process.confirmed = false)
    }

    pub(crate) fn resume(next: &mut State, p: usize) -> Option<()> {
        let id = next.process(p)?.id;
        (!next.processes[p].locked && !next.has_ended(id)).then_some(())?;
        next.processes[p].locked = true;
        next.processes[p].confirmed = true;
        Some(())
    }

    pub(crate) fn see_free(next: &mut State, p: usize, id: usize) -> Option<()> {
        (next.process(p)?.locked && next.is_free(id)).then_some(())?;
        let seen_free = &mut next.processes[p].seen_free;
        (!seen_free.contains(id)).then(|| seen_free.insert(id))
    }

    pub(crate) fn end_other(&self, next: &mut State, p: usize, id: usize) -> Option<()> {
        let free = next.is_free(id);
        let process = next.process(p)?;
        let seen = process.seen_free.contains(id) || self.has(Bug::OneLook);
        (process.locked && free && seen).then_some(())?;
        process.seen_free.remove(id);
        let others = |one: &&mut crate::Process| one.life != Life::Dead && usize::from(one.id) == id;
        for other in next.processes.iter_mut().filter(others) {
            // `takeover_after` lies between the looks: twice as long as any confirmation is trusted.
            (!other.confirmed || self.has(Bug::OneLook)).then_some(())?;
            // Its session was lost for longer than takeover_after: what it had in flight is excused.
            let excused = other.in_flight.union(other.delivered).union(other.refused);
            excused.iter().for_each(|m| next.messages[m].excused = true);
        }
        next.instances[id].ended = true;
        Some(())
    }

    pub(crate) fn doubt(&self, next: &mut State, p: usize) -> Option<()> {
        (next.faults.doubts < self.limits.doubts).then_some(())?;
        (!std::mem::replace(&mut next.process(p)?.doubt, true)).then_some(())?;
        next.faults.doubts += 1;
        Some(())
    }

    pub(crate) fn end_own(&self, next: &mut State, p: usize) -> Option<()> {
        let process = next.process(p)?;
        let id = process.id;
        (process.locked && process.doubt).then_some(())?;
        (process.has_landed() || self.has(Bug::ReplaceInFlight)).then_some(())?;
        process.confirmed &= self.has(Bug::TrustWhileReplacing);
        let ended = &mut next.instances[usize::from(id)].ended;
        (!std::mem::replace(ended, true)).then_some(())
    }

    pub(crate) fn take_another(&self, next: &mut State, p: usize) -> Option<()> {
        let process = next.process(p)?;
        let (id, landed) = (process.id, process.has_landed());
        (next.has_ended(id) && (landed || self.has(Bug::ReplaceInFlight))).then_some(())?;
        next.take_identity(p);
        Some(())
    }

    pub(crate) fn start(next: &mut State, p: usize) -> Option<()> {
        (next.processes[p].life == Life::Dead).then_some(())?;
        next.processes[p].life = Life::Running;
        next.take_identity(p);
        Some(())
    }
}

impl State {
    /// Known to `look`, and nobody holds its lock.
    fn is_free(&self, id: usize) -> bool {
        id < usize::from(self.next_id) && !self.has_ended(id) && !self.lock_is_held(id)
    }

    /// `identity::take`: locked before it is visible. What is in memory, read or adopted belongs to the
    /// identity before, and is dropped where it is met; forgetting it here is the same and fewer states.
    fn take_identity(&mut self, p: usize) {
        let process = &mut self.processes[p];
        process.id = self.next_id;
        process.locked = true;
        process.confirmed = true;
        process.forget();
        self.next_id += 1;
    }
}

impl crate::Process {
    /// Everything but what was handed over.
    pub(crate) fn forget(&mut self) {
        self.doubt = false;
        self.seen_free = Set::EMPTY;
        self.own = OwnLog::default();
        self.adoptions = [Adoption::default(); crate::IDENTITIES];
        self.seen = Set::EMPTY;
        self.memory = Set::EMPTY;
    }
}

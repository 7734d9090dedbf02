//! A log whose writer has ended, read by one adopter.
//!
//! One adopter at a time: the UPDATE that adopts replaces only one that has ended, and whoever has ended
//! hands nothing over any more. The same UPDATE once more finds what it has adopted itself: its answer
//! may be lost. Whoever knows already that it has the log goes on where it is.
//!
//! What is committed may be read at once. What may still commit tells by its lock: see `placement`.
//! So the locks that are held once the end is visible are listed, and when those are gone the log is
//! closed. A pass that begins then sees everything that will ever be there. Until then pass follows pass: one
//! transaction that hangs holds up no message but its own.

use crate::{Bug, IDENTITIES, Instance, Protocol, Set, State};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Adoption {
    /// The process knows that it has adopted the log.
    pub held: bool,
    pub listed: bool,
    /// Transactions that held a lock when that was listed, and are not gone.
    pub waits_for: Set,
    /// A page whose answer is on its way.
    pub page: Option<Page>,
    /// Only [`Bug::PassOnce`] asks whether there was a pass before.
    pub passed: bool,
    /// A pass that began when the log was closed has ended.
    pub last_pass_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    pub messages: Set,
    pub when_closed: bool,
}

impl Protocol {
    pub(crate) fn adopt(&self, next: &mut State, p: usize, log: usize, answered: bool) -> Option<()> {
        let id = next.process(p)?.id;
        let instance = next.instances[log];
        let steal = self.has(Bug::Steal);
        let free = instance.adopter.is_none_or(|one| one == id || next.has_ended(one) || self.has(Bug::TwoAdopters));
        // The UPDATE looks whether the adopter has ended: with its old identity it would take in once more
        // what it has in memory. It may end at that very moment; then another replaces it.
        let other = log != usize::from(id) || self.has(Bug::AdoptOwn);
        let adoptable = (instance.ended || steal) && !instance.done && free && other;
        let again = self.has(Bug::AdoptTwice);
        (adoptable && (!next.processes[p].adoptions[log].held || again)).then_some(())?;
        next.instances[log].adopter = Some(id);
        if answered {
            let process = &mut next.processes[p];
            process.adoptions[log] = Adoption { held: true, ..Adoption::default() };
            if again {
                process.seen = Set::EMPTY;
            }
        } else {
            (next.faults.lost_answers < self.limits.lost_answers).then_some(())?;
            next.faults.lost_answers += 1;
        }
        Some(())
    }

    pub(crate) fn list(&self, next: &mut State, p: usize, log: usize) -> Option<()> {
        let waits_for = match self.bug {
            Some(Bug::CloseEarly) => Set::EMPTY,
            Some(Bug::CloseBySnapshot) => next.transactions(true),
            _ => next.transactions(false),
        };
        let closed = next.instances[log].closed;
        let adoption = next.adoption(p, log)?;
        (!adoption.listed && !closed).then_some(())?;
        adoption.listed = true;
        adoption.waits_for = waits_for;
        Some(())
    }

    pub(crate) fn close(next: &mut State, p: usize, log: usize) -> Option<()> {
        let adoption = next.adoption(p, log)?;
        (adoption.listed && adoption.waits_for.is_empty()).then_some(())?;
        adoption.listed = false;
        next.instances[log].closed = true;
        Some(())
    }

    /// Passes are short here: one page.
    pub(crate) fn read_page(&self, next: &mut State, p: usize, log: usize) -> Option<()> {
        let messages: Set = next.of_log(log).iter().filter(|m| next.is_unsettled(*m)).collect();
        let closed = next.instances[log].closed || self.has(Bug::DoneWithoutClosing);
        let early = self.has(Bug::LastPassTooEarly) && next.processes[p].adoptions[log].listed;
        let when_closed = closed || early;
        let new = messages.without(next.processes[p].seen);
        let adoption = next.adoption(p, log)?;
        (adoption.page.is_none() && !adoption.last_pass_ended).then_some(())?;
        // A page with nothing new on it changes nothing, unless it is the last.
        let useful = when_closed || !new.is_empty();
        let allowed = if self.bug == Some(Bug::PassOnce) { when_closed || !adoption.passed } else { useful };
        allowed.then(|| adoption.page = Some(Page { messages: new, when_closed }))
    }

    pub(crate) fn page_arrives(&self, next: &mut State, p: usize, log: usize) -> Option<()> {
        let adoption = next.adoption(p, log)?;
        let page = adoption.page.take()?;
        adoption.last_pass_ended = page.when_closed;
        adoption.passed = self.has(Bug::PassOnce);
        for m in page.messages.without(next.processes[p].seen).iter() {
            next.push(p, m);
            next.processes[p].seen.insert(m);
        }
        Some(())
    }

    pub(crate) fn lose_page(&self, next: &mut State, p: usize, log: usize) -> Option<()> {
        (next.faults.lost_answers < self.limits.lost_answers).then_some(())?;
        next.adoption(p, log)?.page.take()?;
        next.faults.lost_answers += 1;
        Some(())
    }

    /// What it has seen is settled when nothing of it is in its hands: there is no other way out.
    pub(crate) fn done(&self, next: &mut State, p: usize, log: usize) -> Option<()> {
        let settled = next.of_log(log).iter().all(|m| !next.processes[p].hands().contains(m));
        let last_pass_ended = next.adoption(p, log)?.last_pass_ended;
        let forget = self.has(Bug::Forget) && next.instances[log].closed;
        ((last_pass_ended && settled) || forget).then_some(())?;
        next.forget(log);
        Some(())
    }
}

impl State {
    /// What else was known of it no longer matters: one state instead of several.
    fn forget(&mut self, log: usize) {
        self.instances[log] = Instance { ended: true, adopter: None, closed: true, done: true };
        self.processes.iter_mut().for_each(|process| process.adoptions[log] = Adoption::default());
    }

    /// Fewer states: a log that has ended, with no row and no attempt at one, is adopted and done at once.
    /// No step of that would touch anything else.
    pub(crate) fn forget_empty_logs(&mut self) {
        for log in 0..IDENTITIES {
            let instance = self.instances[log];
            let attempts = self.messages.iter().flat_map(|message| message.attempts).flatten();
            let mut attempts = attempts.map(|one| one.log).chain(self.messages.iter().filter_map(|m| Some(m.row?.log)));
            if instance.ended && !instance.done && attempts.all(|one| usize::from(one) != log) {
                self.forget(log);
            }
        }
    }

    fn adoption(&mut self, p: usize, log: usize) -> Option<&mut Adoption> {
        let adoption = &mut self.process(p)?.adoptions[log];
        adoption.held.then_some(adoption)
    }
}

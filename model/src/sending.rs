//! From memory to the topic, and the fact that it is there.
//!
//! A mark is true whoever states it, whenever, and twice as well: it needs no fence and no owner. With
//! it goes `settled_to` of the message's log, as far as whoever marks knows: everything below is marked, or
//! failed, or known to be absent. The writer knows the last of what it has an answer for. An adopter knows
//! it of a gap only when the log is closed and a pass that began after that has come to its end.

use crate::{Bug, LOG_LENGTH, Mark, Protocol, State};

impl Protocol {
    pub(crate) fn hand_over(&self, next: &mut State, p: usize, m: usize) -> Option<()> {
        let process = next.process(p)?;
        (process.memory.contains(m) && (process.confirmed || self.has(Bug::HandOverUnconfirmed))).then_some(())?;
        process.memory.remove(m);
        process.in_flight.insert(m);
        Some(())
    }

    pub(crate) fn deliver(next: &mut State, p: usize, m: usize) -> Option<()> {
        let process = next.process(p).filter(|process| process.in_flight.contains(m))?;
        process.in_flight.remove(m);
        process.delivered.insert(m);
        next.messages[m].arrive();
        Some(())
    }

    pub(crate) fn ghost(next: &mut State, m: usize, arrives: bool) -> Option<()> {
        let message = &mut next.messages[m];
        std::mem::take(&mut message.ghost).then_some(())?;
        if arrives {
            message.arrive();
        }
        Some(())
    }

    pub(crate) fn mark(&self, next: &mut State, p: usize, m: usize, answered: bool) -> Option<()> {
        let process = next.process(p).filter(|process| process.delivered.contains(m))?;
        if answered {
            process.delivered.remove(m);
        } else {
            (next.faults.lost_answers < self.limits.lost_answers).then_some(())?;
            next.faults.lost_answers += 1;
        }
        let log = usize::from(next.messages[m].row?.log);
        let stated = next.settled_to(log);
        next.messages[m].mark = Mark::Settling(stated);
        next.messages[m].mark = Mark::Settling(self.settled(next, p, log));
        Some(())
    }

    pub(crate) fn refuse(&self, next: &mut State, p: usize, m: usize) -> Option<()> {
        (next.faults.refusals < self.limits.refusals).then_some(())?;
        let process = next.process(p).filter(|process| process.in_flight.contains(m))?;
        process.in_flight.remove(m);
        process.refused.insert(m);
        next.faults.refusals += 1;
        Some(())
    }

    pub(crate) fn reject(next: &mut State, p: usize, m: usize) -> Option<()> {
        let process = next.process(p).filter(|process| process.refused.contains(m))?;
        process.refused.remove(m);
        next.messages[m].failed = true;
        Some(())
    }

    /// As far as a process knows, everything up to there is settled. Whatever it knows stays true,
    /// so that it does not matter when the statement that says so commits.
    fn settled(&self, state: &State, p: usize, log: usize) -> u8 {
        let process = &state.processes[p];
        let mut to = state.settled_to(log);
        // After a change of timeline an answer may be worth nothing.
        while !process.doubt && usize::from(to) < LOG_LENGTH && self.knows_settled(state, p, log, to) {
            to += 1;
        }
        to
    }

    fn knows_settled(&self, state: &State, p: usize, log: usize, seq: u8) -> bool {
        let process = &state.processes[p];
        let own = usize::from(process.id) == log;
        let there = state.at(log, seq.into());
        if self.has(Bug::SettleUnknown) && own && process.own.under_way.contains(seq) {
            let unknown = |m: &usize| state.messages[*m].placing.is_some_and(|one| one.unknown && one.seq == seq);
            return (0..self.messages).filter(|m| self.writers[*m] == p).any(|m| unknown(&m));
        }
        match there {
            Some(m) if self.has(Bug::SettleRefused) && process.refused.contains(m) => true,
            Some(m) => state.messages[m].was_settled(),
            None if own => process.own.absent.contains(seq),
            None => process.adoptions[log].last_pass_ended || self.has(Bug::SettleGaps),
        }
    }
}

impl crate::Message {
    fn arrive(&mut self) {
        self.copies = (self.copies + 1).min(2);
    }
}

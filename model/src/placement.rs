//! A placement, as its writer and as the server see it.
//!
//! The server takes the lock on the outbox before the statement's snapshot. So whoever holds no lock
//! once the end of an identity is visible takes a snapshot that sees the end, and is fenced; and
//! whoever got past the fence holds a lock until it has committed or aborted. Closing rests on both.
//!
//! A statement that is repeated waits for the one before it (`ON CONFLICT`) and then says how that
//! ended. An answer is final only if it comes from there: one that was fenced, or aborted, says
//! nothing about an earlier attempt whose answer was lost.

use crate::{Bug, MESSAGES, Protocol, Row, Set, State};

/// A ticket in the hands of its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placing {
    pub log: u8,
    pub seq: u8,
    /// A slot of the queue is reserved for it.
    pub slot: bool,
    /// The answer to an attempt was lost.
    pub unknown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    pub log: u8,
    pub seq: u8,
    pub phase: Phase,
    /// Somebody waits for the answer.
    pub asked: bool,
    /// The identity had not ended when the statement was sent. Only [`Bug::OldSnapshot`] asks.
    pub open_when_sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// On its way, for as long as it likes.
    Sent,
    /// Holds ROW EXCLUSIVE on the outbox, has no snapshot yet.
    Locked,
    /// Past the fence; ON CONFLICT waits for another attempt. Has no xid.
    Waiting,
    /// Past the fence, order and message are written.
    Written,
    /// [`Bug::FenceAtMessage`]: the order alone is written.
    OrderAlone,
    Answered(Answer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The message is there, by this attempt or by another.
    There,
    /// The identity has ended.
    Fenced,
    Aborted,
}

impl Protocol {
    pub(crate) fn place(&self, next: &mut State, m: usize, slot: bool) -> Option<()> {
        let message = &next.messages[m];
        let fresh = message.placing.is_none() && message.row.is_none() && message.attempts == [None; 2];
        fresh.then_some(())?;
        self.send(next, m, slot, None)
    }

    /// Under one identity every attempt has the same ticket, so that whichever of them is carried out, the message
    /// stands where its writer looks for it.
    pub(crate) fn repeat(&self, next: &mut State, m: usize, slot: bool) -> Option<()> {
        let placing = next.messages[m].placing?;
        let asked = next.messages[m].attempts.iter().flatten().any(|attempt| attempt.asked);
        (!asked).then_some(())?;
        let current = placing.log == next.processes[self.writers[m]].id;
        if current {
            // Fenced and known: it waits for the next identity.
            (placing.unknown && slot == placing.slot).then_some(())?;
        }
        self.send(next, m, slot, current.then_some(placing))
    }

    fn send(&self, next: &mut State, m: usize, slot: bool, again: Option<Placing>) -> Option<()> {
        let process = next.process(self.writers[m])?;
        let log = process.id;
        let placing = match again {
            Some(placing) => placing,
            None => Placing { log, seq: self.draw(&mut process.own, slot)?, slot, unknown: false },
        };
        let open_when_sent = self.has(Bug::OldSnapshot) && !next.has_ended(log);
        let message = &mut next.messages[m];
        let free = message.attempts.iter_mut().find(|attempt| attempt.is_none())?;
        *free = Some(Attempt { log, seq: placing.seq, phase: Phase::Sent, asked: true, open_when_sent });
        message.placing = Some(placing);
        Some(())
    }

    pub(crate) fn lock(next: &mut State, m: usize, a: usize) -> Option<()> {
        let attempt = next.messages[m].attempts[a].as_mut()?;
        (attempt.phase == Phase::Sent).then(|| attempt.phase = Phase::Locked)
    }

    pub(crate) fn snapshot(&self, next: &mut State, m: usize, a: usize) -> Option<()> {
        let attempt = next.messages[m].attempts[a].filter(|attempt| attempt.phase == Phase::Locked)?;
        let open = !next.has_ended(attempt.log) || attempt.open_when_sent || self.has(Bug::NoFence);
        let message = &next.messages[m];
        let other = message.attempts.iter().flatten().any(|one| one.phase == Phase::Written);
        let phase = match (open, message.row, other) {
            (false, None, false) if self.has(Bug::FenceAtMessage) => Phase::OrderAlone,
            (false, ..) => Phase::Answered(Answer::Fenced),
            // A row that has gone with its partition is found as well: by the order's idempotency key.
            (true, Some(_), _) => Phase::Answered(Answer::There),
            (true, None, true) => Phase::Waiting,
            (true, None, false) => Phase::Written,
        };
        if let Phase::Answered(answer) = phase {
            next.end_attempt(m, a, answer);
        } else {
            next.messages[m].attempts[a] = Some(Attempt { phase, ..attempt });
        }
        Some(())
    }

    pub(crate) fn commit(next: &mut State, m: usize, a: usize) -> Option<()> {
        let attempt = next.messages[m].attempts[a]?;
        match attempt.phase {
            Phase::Written => {
                next.messages[m].row = Some(Row { log: attempt.log, seq: attempt.seq, dropped: false });
                next.messages[m].order = true;
            }
            Phase::OrderAlone => next.messages[m].order = true,
            _ => return None,
        }
        next.end_attempt(m, a, Answer::There);
        if next.messages[m].attempts[1 - a].is_some_and(|other| other.phase == Phase::Waiting) {
            next.end_attempt(m, 1 - a, Answer::There);
        }
        Some(())
    }

    pub(crate) fn abort(&self, next: &mut State, m: usize, a: usize) -> Option<()> {
        let attempt = next.messages[m].attempts[a].filter(|one| !matches!(one.phase, Phase::Answered(_)))?;
        if attempt.asked {
            // One that had not begun is as good as none.
            (attempt.phase != Phase::Sent && next.faults.aborts < self.limits.aborts).then_some(())?;
            next.faults.aborts += 1;
        }
        next.end_attempt(m, a, Answer::Aborted);
        if let Some(other) = &mut next.messages[m].attempts[1 - a]
            && other.phase == Phase::Waiting
        {
            other.phase = Phase::Written;
        }
        Some(())
    }

    pub(crate) fn answer(&self, next: &mut State, m: usize) -> Option<()> {
        let p = self.writers[m];
        let a = next.messages[m].answered()?;
        let Phase::Answered(answer) = next.messages[m].attempts[a]?.phase else { return None };
        let placing = next.messages[m].placing?;
        let current = placing.log == next.process(p)?.id;
        next.messages[m].attempts[a] = None;
        let known = answer == Answer::There || !placing.unknown;
        if known && current && answer != Answer::There {
            next.processes[p].own.absent(placing.seq);
        }
        match answer {
            Answer::There => {
                next.messages[m].placing = None;
                let here = next.messages[m].row.is_some_and(|row| row.log == next.processes[p].id);
                if here || (self.has(Bug::EnqueueForEnded) && placing.slot) {
                    self.committed(next, p, m, placing);
                } else if current {
                    next.processes[p].own.absent(placing.seq);
                }
            }
            Answer::Aborted if known => next.messages[m].placing = None,
            // It is repeated, under the next identity where this one has ended.
            Answer::Aborted | Answer::Fenced => {}
        }
        Some(())
    }

    pub(crate) fn lose_answer(&self, next: &mut State, m: usize) -> Option<()> {
        (next.faults.lost_answers < self.limits.lost_answers).then_some(())?;
        next.faults.lost_answers += 1;
        let message = &mut next.messages[m];
        let attempt = message.attempts.iter_mut().find(|one| one.is_some_and(|one| one.asked))?;
        message.placing.as_mut()?.unknown = true;
        *attempt = attempt.filter(|one| !matches!(one.phase, Phase::Answered(_))).map(Attempt::forgotten);
        Some(())
    }
}

impl Attempt {
    pub(crate) fn forgotten(self) -> Self {
        Self { asked: false, ..self }
    }
}

impl crate::Message {
    fn answered(&self) -> Option<usize> {
        let answered = |one: &Option<Attempt>| one.is_some_and(|one| matches!(one.phase, Phase::Answered(_)));
        self.attempts.iter().position(answered)
    }
}

impl State {
    /// Its transaction is over, and its lock is gone; the commit was visible before that.
    fn end_attempt(&mut self, m: usize, a: usize, answer: Answer) {
        let attempt = &mut self.messages[m].attempts[a];
        *attempt = attempt.filter(|one| one.asked).map(|one| Attempt { phase: Phase::Answered(answer), ..one });
        for adoption in self.processes.iter_mut().flat_map(|process| &mut process.adoptions) {
            adoption.waits_for.remove(transaction(m, a));
        }
    }

    /// The virtual transactions that hold ROW EXCLUSIVE on the outbox; or of these, with an xid.
    pub(crate) fn transactions(&self, with_xid: bool) -> Set {
        let attempts = (0..MESSAGES).flat_map(|m| [(m, 0), (m, 1)]);
        let holds = |(m, a): &(usize, usize)| {
            self.messages[*m].attempts[*a].is_some_and(|one| match one.phase {
                Phase::Written | Phase::OrderAlone => true,
                Phase::Locked | Phase::Waiting => !with_xid,
                Phase::Sent | Phase::Answered(_) => false,
            })
        };
        attempts.filter(holds).map(|(m, a)| transaction(m, a)).collect()
    }
}

fn transaction(m: usize, a: usize) -> usize {
    2 * m + a
}

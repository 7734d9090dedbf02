use crate::{Adoption, Attempt, Faults, IDENTITIES, LOG_LENGTH, MESSAGES, OwnLog, PROCESSES, Phase, Placing, Set};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    Running,
    /// SIGSTOP: acts on nothing; its connections stay.
    Paused,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub life: Life,
    pub id: u8,
    /// The session holds the lock of `id`.
    pub locked: bool,
    /// A confirmation of the lock is recent enough to hand over (`Instance::confirmed`).
    pub confirmed: bool,
    /// The identity is to be replaced.
    pub doubt: bool,
    /// Identities whose lock it has seen free, holding its own ever since.
    pub seen_free: Set,
    pub own: OwnLog,
    /// By log: what it knows to have adopted.
    pub adoptions: [Adoption; IDENTITIES],
    /// Messages of adopted logs that it has read; a second pass leaves them out.
    pub seen: Set,
    /// In the queue or waiting for a back-off.
    pub memory: Set,
    /// With the producer.
    pub in_flight: Set,
    /// Acknowledged, and its mark not known to be committed.
    pub delivered: Set,
    /// Refused at the threshold, and its row among the rejected ones not committed.
    pub refused: Set,
}

/// A row of `instances`, and the log that this instance writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Instance {
    pub ended: bool,
    pub adopter: Option<u8>,
    /// No commit can come any more.
    pub closed: bool,
    /// Closed, and everything in it settled: nobody looks at it again.
    pub done: bool,
}

/// A row of the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub log: u8,
    pub seq: u8,
    /// It has gone with its partition.
    pub dropped: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mark {
    #[default]
    None,
    /// Marked, in a row that states this `settled_to`.
    Settling(u8),
    /// Once marked; the mark has gone with its partition.
    Dropped,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// What its writer is about.
    pub placing: Option<Placing>,
    /// What the server is about: the first attempt, and one that repeats it.
    pub attempts: [Option<Attempt>; 2],
    pub order: bool,
    pub row: Option<Row>,
    pub mark: Mark,
    /// Its row among the rejected ones is committed.
    pub failed: bool,
    /// How often it is on the topic; more than two are two.
    pub copies: u8,
    /// It may be there twice by what the guarantees allow.
    pub excused: bool,
    /// Handed over by a process that was killed: the broker may still take it.
    pub ghost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub processes: [Process; PROCESSES],
    pub instances: [Instance; IDENTITIES],
    pub messages: [Message; MESSAGES],
    pub next_id: u8,
    /// A message entered a memory whose identity has it already, or had it.
    pub entered_twice: bool,
    pub faults: Faults,
}

impl Process {
    /// Everything that was handed over has come to its end: all permits of the flight are back.
    pub(crate) fn has_landed(&self) -> bool {
        self.in_flight.is_empty() && self.delivered.is_empty() && self.refused.is_empty()
    }

    pub(crate) fn hands(&self) -> Set {
        self.memory.union(self.in_flight).union(self.delivered).union(self.refused)
    }
}

impl Message {
    /// Somebody has stated once that it is published, or that it waits for an operator.
    #[must_use]
    pub fn was_settled(&self) -> bool {
        self.mark != Mark::None || self.failed
    }

    /// Where it stands in the outbox.
    pub(crate) fn standing(&self) -> Option<Row> {
        self.row.filter(|row| !row.dropped)
    }
}

impl State {
    pub(crate) fn process(&mut self, p: usize) -> Option<&mut Process> {
        (self.processes[p].life == Life::Running).then_some(&mut self.processes[p])
    }

    pub(crate) fn has_ended(&self, id: impl Into<usize>) -> bool {
        self.instances[id.into()].ended
    }

    pub(crate) fn lock_is_held(&self, id: usize) -> bool {
        self.processes
            .iter()
            .any(|process| process.life != Life::Dead && usize::from(process.id) == id && process.locked)
    }

    /// The newest `settled_to` that the marks of a log state.
    #[must_use]
    pub fn settled_to(&self, log: impl Into<usize>) -> u8 {
        let log = log.into();
        let of_log = self.messages.iter().filter(|message| message.row.is_some_and(|row| usize::from(row.log) == log));
        let stated = of_log.map(|message| if let Mark::Settling(to) = message.mark { to } else { 0 });
        stated.max().unwrap_or(0)
    }

    /// In the outbox, above its log's `settled_to`, without a mark, and not failed: what a pass reads.
    #[must_use]
    pub fn is_unsettled(&self, m: usize) -> bool {
        let message = &self.messages[m];
        let above = message.standing().is_some_and(|row| row.seq >= self.settled_to(row.log));
        above && !matches!(message.mark, Mark::Settling(_)) && !message.failed
    }

    pub(crate) fn of_log(&self, log: usize) -> Set {
        let of_log = |m: &usize| self.messages[*m].row.is_some_and(|row| usize::from(row.log) == log);
        (0..MESSAGES).filter(of_log).collect()
    }

    /// The message that was committed there.
    pub(crate) fn at(&self, log: usize, seq: usize) -> Option<usize> {
        let there = |row: Row| usize::from(row.log) == log && usize::from(row.seq) == seq;
        (0..MESSAGES).find(|m| self.messages[*m].row.is_some_and(there))
    }

    /// A placement may still commit there.
    pub(crate) fn may_commit(&self, log: usize, seq: usize) -> bool {
        let there = |one: &Attempt| usize::from(one.log) == log && usize::from(one.seq) == seq;
        self.messages.iter().filter(|message| message.row.is_none()).any(|message| {
            message.attempts.iter().flatten().filter(|one| there(one)).any(|one| match one.phase {
                Phase::Sent | Phase::Locked => !self.has_ended(log),
                Phase::Waiting | Phase::Written => true,
                Phase::OrderAlone | Phase::Answered(_) => false,
            })
        })
    }

    /// A message enters the memory of a process.
    pub(crate) fn push(&mut self, p: usize, m: usize) {
        self.entered_twice |= self.processes[p].hands().contains(m);
        self.processes[p].memory.insert(m);
    }

    /// In how many memories a message is from which it may still be handed over: a process whose
    /// identity was ended by another drops what it holds as soon as it knows.
    #[must_use]
    pub fn memories_of(&self, m: usize) -> usize {
        let living = self.processes.iter().filter(|one| one.life != Life::Dead && !self.has_ended(one.id));
        living.filter(|process| process.memory.contains(m)).count()
    }

    /// Every message was placed and settled, no attempt is left, and every ended log is forgotten.
    #[must_use]
    pub fn is_complete(&self, messages: usize) -> bool {
        let settled = |m: &Message| m.row.is_some() && m.was_settled() && m.attempts == [None; 2];
        self.messages[..messages].iter().all(settled) && self.instances.iter().all(|one| !one.ended || one.done)
    }
}

const _: () = assert!(LOG_LENGTH <= 8 && MESSAGES * 2 <= 8 && IDENTITIES <= 8, "a set holds numbers below eight");

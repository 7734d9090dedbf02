//! Up to when everything is announced: two logs of which the second begins late, a clock that may go back, and
//! whoever tells. Everything else of the protocol is left out: what it takes to settle a message is shown elsewhere.
//!
//! A told time is exclusive here: everything of an earlier time is announced.

use stateright::{Model, Property};

/// The last time of the clock.
const LAST: u8 = 2;
const LOGS: usize = 2;
const MESSAGES: usize = 2;

/// A fault planted in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A statement takes the clock for the message's time, whatever was noted before.
    TimeByClock,
    /// A moment is stated while places drawn before it are not settled.
    StatedPastUnderWay,
    /// The place is noted first, the clock asked for afterwards.
    ClockAfterPlace,
    /// A log that has stated nothing does not count.
    StartIgnored,
    /// What is told is not looked at again.
    OneLook,
    /// A new identity reads what was told before it can be seen.
    ReadsFirst,
    /// A log that has ended is done while a transaction may still commit to it.
    DoneTooEarly,
    /// A log that has ended does not count, done or not.
    EndedIgnored,
}

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::TimeByClock,
        Self::StatedPastUnderWay,
        Self::ClockAfterPlace,
        Self::StartIgnored,
        Self::OneLook,
        Self::ReadsFirst,
        Self::DoneTooEarly,
        Self::EndedIgnored,
    ];
}

/// The protocol, where the clock may go back so often.
#[derive(Clone, Copy, Debug)]
pub struct Announcing {
    /// One finds every fault; a second one shows that they do not help each other.
    pub messages: usize,
    pub steps_back: u8,
    pub fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    /// When it became visible.
    started: Option<u8>,
    /// No message that is drawn from now on has an earlier time. None before the identity may write.
    not_before: Option<u8>,
    /// Places noted before the clock is asked for.
    asked: Option<(u8, u8)>,
    /// A clock, and the places drawn when it was noted.
    moment: Option<(u8, u8)>,
    stated: Option<u8>,
    ended: bool,
    done: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AnnouncedMessage {
    #[default]
    New,
    /// Its time is this or later.
    Drawn {
        log: u8,
        not_before: u8,
    },
    /// The transaction has begun, with this time.
    UnderWay {
        log: u8,
        at: u8,
    },
    Committed {
        log: u8,
        at: u8,
    },
    Announced {
        log: u8,
        at: u8,
    },
    Absent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnnouncingState {
    clock: u8,
    steps_back: u8,
    logs: [Log; LOGS],
    messages: [AnnouncedMessage; MESSAGES],
    /// What whoever tells has seen and not written yet.
    seen: Option<u8>,
    /// Committed, and to be looked at again before it is told.
    written: u8,
    is_to_be_told: bool,
    told: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnouncingAction {
    Tick,
    StepBack,
    /// `identity::take`: the row, and then what was told.
    Appear(usize),
    Take(usize),
    /// `progress::note_clock`. The question by itself only where it comes too late.
    Ask(usize),
    Note(usize),
    /// `OwnLog::settled_until`, stated.
    State(usize),
    /// Killed, or replaced.
    End(usize),
    /// `Adopted::finish`.
    Done(usize),
    Draw(usize, usize),
    Begin(usize),
    Commit(usize),
    Abort(usize),
    /// Acknowledged, by whoever sends the log.
    Announce(usize),
    /// `announcer::next`: the statement's snapshot, and its commit.
    See,
    Write,
    /// `Announcer::tell`: the second look.
    Tell,
}

impl AnnouncedMessage {
    fn log(self) -> Option<usize> {
        match self {
            Self::New | Self::Absent => None,
            Self::Drawn { log, .. }
            | Self::UnderWay { log, .. }
            | Self::Committed { log, .. }
            | Self::Announced { log, .. } => Some(log.into()),
        }
    }

    fn is_settled(self) -> bool {
        matches!(self, Self::Announced { .. } | Self::Absent)
    }
}

impl Announcing {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Messages in which a log has an interest: as a set of bits.
    fn drawn(state: &AnnouncingState, log: usize) -> u8 {
        (0..MESSAGES).filter(|m| state.messages[*m].log() == Some(log)).map(|m| 1 << m).sum()
    }

    /// `announced_to()`.
    fn least(&self, state: &AnnouncingState) -> Option<u8> {
        let counts = |log: &&Log| log.started.is_some() && !log.done && !(log.ended && self.has(Fault::EndedIgnored));
        let until = |log: &Log| log.stated.or(log.started.filter(|_| !self.has(Fault::StartIgnored)));
        state.logs.iter().filter(counts).filter_map(until).min()
    }

    fn act(&self, next: &mut AnnouncingState, action: AnnouncingAction) -> Option<()> {
        use AnnouncingAction as A;

        let clock = next.clock;
        match action {
            A::Tick => (clock < LAST).then(|| next.clock += 1),
            A::StepBack => (next.steps_back < self.steps_back && clock > 0).then(|| {
                next.steps_back += 1;
                next.clock -= 1;
            }),
            A::Appear(l) => {
                let has_read = next.logs[l].not_before.is_some() || !self.has(Fault::ReadsFirst);
                let log = &mut next.logs[l];
                (log.started.is_none() && has_read).then(|| log.started = Some(clock))
            }
            A::Take(l) => {
                let written = next.written;
                let log = &mut next.logs[l];
                let is_visible = log.started.is_some() || self.has(Fault::ReadsFirst);
                (log.not_before.is_none() && is_visible && !log.ended)
                    .then(|| log.not_before = Some(clock.max(written).max(log.started.unwrap_or(0))))
            }
            A::Ask(l) => {
                let drawn = Self::drawn(next, l);
                let log = &mut next.logs[l];
                let is_of_interest = self.has(Fault::ClockAfterPlace) && log.asked.is_none();
                (log.may_write() && is_of_interest).then(|| log.asked = Some((clock, drawn)))
            }
            A::Note(l) => {
                let drawn = Self::drawn(next, l);
                let late = self.has(Fault::ClockAfterPlace);
                let log = &mut next.logs[l];
                // A clock that was known longer ago would tell less.
                let (asked, then) = if late { (clock, log.asked.take()?.1) } else { (clock, drawn) };
                let at = asked.max(log.not_before.filter(|_| log.may_write())?);
                // A moment that is not settled yet stays, and the newer one is forgotten.
                (log.moment.is_none() && log.stated < Some(at)).then(|| {
                    log.not_before = Some(at);
                    log.moment = Some((at, then));
                })
            }
            A::State(l) => {
                let (at, drawn) = next.logs[l].moment.filter(|_| !next.logs[l].ended)?;
                let settled = (0..MESSAGES).filter(|m| drawn & 1 << m != 0).all(|m| next.messages[m].is_settled());
                (settled || self.has(Fault::StatedPastUnderWay)).then_some(())?;
                next.logs[l].moment = None;
                next.logs[l].stated = next.logs[l].stated.max(Some(at));
                Some(())
            }
            A::End(l) => {
                let log = &mut next.logs[l];
                (log.started.is_some() && !std::mem::replace(&mut log.ended, true)).then_some(())
            }
            A::Done(l) => {
                let is_left = next.messages.iter().any(|message| match *message {
                    AnnouncedMessage::UnderWay { log, .. } => usize::from(log) == l && !self.has(Fault::DoneTooEarly),
                    AnnouncedMessage::Committed { log, .. } => usize::from(log) == l,
                    _ => false,
                });
                let log = &mut next.logs[l];
                (log.ended && !is_left && !std::mem::replace(&mut log.done, true)).then_some(())
            }
            A::Draw(m, l) => {
                let log = &next.logs[l];
                let not_before = log.not_before.filter(|_| log.may_write())?;
                (next.messages[m] == AnnouncedMessage::New).then_some(())?;
                next.messages[m] = AnnouncedMessage::Drawn { log: u8::try_from(l).ok()?, not_before };
                Some(())
            }
            A::Begin(m) => {
                let AnnouncedMessage::Drawn { log, not_before } = next.messages[m] else { return None };
                let at = if self.has(Fault::TimeByClock) { clock } else { clock.max(not_before) };
                let is_fenced = next.logs[usize::from(log)].ended;
                next.messages[m] =
                    if is_fenced { AnnouncedMessage::Absent } else { AnnouncedMessage::UnderWay { log, at } };
                Some(())
            }
            A::Commit(m) => {
                let AnnouncedMessage::UnderWay { log, at } = next.messages[m] else { return None };
                next.messages[m] = AnnouncedMessage::Committed { log, at };
                Some(())
            }
            A::Abort(m) => {
                let AnnouncedMessage::UnderWay { .. } = next.messages[m] else { return None };
                next.messages[m] = AnnouncedMessage::Absent;
                Some(())
            }
            A::Announce(m) => {
                let AnnouncedMessage::Committed { log, at } = next.messages[m] else { return None };
                next.messages[m] = AnnouncedMessage::Announced { log, at };
                Some(())
            }
            A::See => {
                (next.seen.is_none() && !next.is_to_be_told).then_some(())?;
                next.seen = Some(self.least(next)?);
                Some(())
            }
            A::Write => {
                next.written = next.written.max(next.seen.take()?);
                next.is_to_be_told = true;
                if self.has(Fault::OneLook) {
                    next.told = next.written;
                }
                Some(())
            }
            A::Tell => {
                std::mem::take(&mut next.is_to_be_told).then_some(())?;
                if self.least(next).is_some_and(|least| least >= next.written) {
                    next.told = next.written;
                }
                Some(())
            }
        }
    }
}

impl Log {
    fn may_write(&self) -> bool {
        self.started.is_some() && self.not_before.is_some() && !self.ended
    }
}

impl Model for Announcing {
    type State = AnnouncingState;
    type Action = AnnouncingAction;

    fn init_states(&self) -> Vec<AnnouncingState> {
        let mut state = AnnouncingState::default();
        state.logs[0] = Log { started: Some(0), not_before: Some(0), ..Log::default() };
        vec![state]
    }

    fn actions(&self, _: &AnnouncingState, actions: &mut Vec<AnnouncingAction>) {
        use AnnouncingAction as A;

        actions.extend([A::Tick, A::StepBack, A::See, A::Write, A::Tell]);
        // The first log ends, the second one begins.
        actions.extend([A::End(0), A::Done(0), A::Appear(1), A::Take(1)]);
        for l in 0..LOGS {
            actions.extend([A::Ask(l), A::Note(l), A::State(l)]);
            actions.extend((0..self.messages).map(|m| A::Draw(m, l)));
        }
        for m in 0..self.messages {
            actions.extend([A::Begin(m), A::Commit(m), A::Abort(m), A::Announce(m)]);
        }
    }

    fn next_state(&self, state: &AnnouncingState, action: AnnouncingAction) -> Option<AnnouncingState> {
        let mut next = *state;
        self.act(&mut next, action)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "everything of an earlier time than was told is announced",
                |_, state: &AnnouncingState| {
                    state.messages.iter().all(|message| match *message {
                        AnnouncedMessage::UnderWay { at, .. } | AnnouncedMessage::Committed { at, .. } => {
                            at >= state.told
                        }
                        _ => true,
                    })
                },
            ),
            Property::sometimes("something is told behind a message", |_, state: &AnnouncingState| {
                state
                    .messages
                    .iter()
                    .any(|message| matches!(message, AnnouncedMessage::Announced { at, .. } if *at < state.told))
            }),
        ]
    }
}

//! What can happen next, and what it does.

use stateright::{Model, Property};

use crate::{Bug, Held, IDENTITIES, Life, PROCESSES, Process, Protocol, Row, Set, State};

/// One step of one party. Numbers: the process, then the message or the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `placement::statement::place` or `change::Statement::change` sends the statement; with or without a
    /// slot of the queue.
    Place(u8, u8, bool),
    /// The server carries it out, whatever has become of the process; the answer arrives at once
    /// (`Announcement::committed`), or is lost on its way.
    Commit(u8, bool),
    /// A lost or late answer is known after all: `outcome::until_known` repeats the statement until it is.
    Answer(u8, u8),
    /// `outbox::claim` under the current identity. A lost answer is a doubt about what the process
    /// owns: `Instance::replaced_after_doubt`.
    Claim(u8, u8, bool),
    /// `Publisher::hand_over`.
    HandOver(u8, u8),
    /// The broker takes a message and acknowledges it.
    Deliver(u8, u8),
    /// The broker takes, or never gets, what a killed process had sent.
    GhostArrives(u8),
    GhostVanishes(u8),
    /// `outbox::mark_published`.
    Mark(u8, u8),
    /// `session::Session::hold` holds for `takeover_after`.
    Settle(u8),
    /// Half of `takeover_after` passes without a confirmation.
    Expire(u8),
    /// `session::resume`: the lock taken again, the identity not ended.
    Resume(u8),
    /// `Session::hold` sees the lock of another identity free, for the first time.
    SeeFree(u8, u8),
    /// `Session::end_other`, at least `takeover_after` later, with that lock in hand.
    EndOther(u8, u8),
    /// `Session::replace`, its first half, in doubt: the own identity ends once the flight has landed.
    EndOwn(u8),
    /// `Session::replace`, its second half; or the whole after being ended by another.
    TakeAnother(u8),
    /// `Session::begin` of a process started again.
    Start(u8),
    /// Faults.
    Kill(u8),
    Pause(u8),
    Wake(u8),
    LoseSession(u8),
}

/// A message held under an identity, as one number.
pub(crate) fn held(message: u8, id: u8) -> u8 {
    message * IDENTITIES + id
}

fn message_of(held: u8) -> u8 {
    held / IDENTITIES
}

fn id_of(held: u8) -> u8 {
    held % IDENTITIES
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let fresh = |id| Process {
            life: Life::Running,
            id,
            locked: true,
            confirmed: true,
            settled: false,
            answers: Held::EMPTY,
            memory: Held::EMPTY,
            in_flight: Held::EMPTY,
            delivered: Held::EMPTY,
            doubt: false,
            seen_free: Set::<u8>::EMPTY,
        };
        vec![State {
            processes: [fresh(1), fresh(2)],
            rows: [None; 2],
            placing: [None; 2],
            ended: Set::<u8>::EMPTY.with(0),
            copies: [0; 2],
            excused: Set::<u8>::EMPTY,
            ghosts: Set::<u8>::EMPTY,
            next_id: 3,
            kills: 0,
            pauses: 0,
            lost_sessions: 0,
            lost_answers: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        use Action as A;
        let of_message = (0..self.messages)
            .flat_map(|m| [A::Commit(m, true), A::Commit(m, false), A::GhostArrives(m), A::GhostVanishes(m)]);
        actions.extend(of_message);
        for p in 0..PROCESSES {
            let process = &state.processes[usize::from(p)];
            actions.extend([A::Settle(p), A::Expire(p), A::Resume(p), A::EndOwn(p), A::TakeAnother(p), A::Start(p)]);
            actions.extend([A::Kill(p), A::Pause(p), A::Wake(p), A::LoseSession(p)]);
            actions.extend((0..self.messages).flat_map(|m| {
                [A::Place(p, m, true), A::Place(p, m, false), A::Claim(p, m, true), A::Claim(p, m, false)]
            }));
            actions.extend(process.answers.iter().map(|h| A::Answer(p, h)));
            actions.extend(process.memory.iter().map(|h| A::HandOver(p, h)));
            actions.extend(process.in_flight.iter().map(|h| A::Deliver(p, h)));
            actions.extend(process.delivered.iter().map(|h| A::Mark(p, h)));
            actions.extend((1..state.next_id).flat_map(|id| [A::SeeFree(p, id), A::EndOther(p, id)]));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no duplicate outside what the guarantees allow", |_, state: &State| {
                (0..2).all(|m| state.copies[usize::from(m)] < 2 || state.excused.contains(m))
            }),
            Property::always("a row is in at most one living memory", |_, state: &State| {
                (0..2).all(|m| state.memories_of(m) < 2)
            }),
            Property::always("nothing unplaced is on the topic", |_, state: &State| {
                (0..2).all(|m| state.copies[m] == 0 || state.rows[m].is_some())
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.next_id <= IDENTITIES
    }
}

impl Protocol {
    /// The state after an action; none where the action is not possible.
    #[must_use]
    pub fn step(&self, state: &State, action: Action) -> Option<State> {
        use Action as A;
        let mut next = *state;
        match action {
            A::Commit(m, answered) => {
                let (p, owner) = next.placing[usize::from(m)].take()?;
                next.rows[usize::from(m)] = Some(Row { owner, published: false });
                let life = next.processes[usize::from(p)].life;
                match (life, answered) {
                    (Life::Running, true) => self.learn(&mut next, p, held(m, owner)),
                    // A paused process finds the answer when it wakes.
                    (Life::Paused, false) => {}
                    (Life::Running, false) if next.lost_answers < self.lost_answers => next.lost_answers += 1,
                    (Life::Dead, true) => return Some(next),
                    _ => return None,
                }
                if !answered {
                    let process = &mut next.processes[usize::from(p)];
                    process.answers = process.answers.with(held(m, owner));
                }
            }
            A::GhostArrives(m) => {
                next.ghosts.contains(m).then_some(())?;
                next.ghosts = next.ghosts.without(m);
                next.copies[usize::from(m)] = (next.copies[usize::from(m)] + 1).min(2);
            }
            A::GhostVanishes(m) => {
                next.ghosts.contains(m).then_some(())?;
                next.ghosts = next.ghosts.without(m);
            }
            A::Start(p) => {
                let process = &mut next.processes[usize::from(p)];
                (process.life == Life::Dead).then_some(())?;
                process.life = Life::Running;
                take_identity(&mut next, p);
            }
            A::Wake(p) => {
                let process = &mut next.processes[usize::from(p)];
                (process.life == Life::Paused).then_some(())?;
                process.life = Life::Running;
            }
            A::Expire(p) => {
                let process = &mut next.processes[usize::from(p)];
                (process.life != Life::Dead && process.confirmed && !process.locked).then_some(())?;
                process.confirmed = false;
            }
            A::LoseSession(p) => {
                let process = &mut next.processes[usize::from(p)];
                (process.life != Life::Dead && process.locked && next.lost_sessions < self.lost_sessions)
                    .then_some(())?;
                process.locked = false;
                process.settled = false;
                process.seen_free = Set::<u8>::EMPTY;
                next.lost_sessions += 1;
            }
            A::Kill(p) => {
                (next.kills < self.kills).then_some(())?;
                next.kills += 1;
                kill(&mut next, p)?;
            }
            A::Pause(p) => {
                (next.pauses < self.pauses).then_some(())?;
                let process = &mut next.processes[usize::from(p)];
                (process.life == Life::Running).then_some(())?;
                process.life = Life::Paused;
                next.pauses += 1;
            }
            A::Place(p, ..)
            | A::Answer(p, _)
            | A::Claim(p, ..)
            | A::HandOver(p, _)
            | A::Deliver(p, _)
            | A::Mark(p, _)
            | A::Settle(p)
            | A::Resume(p)
            | A::SeeFree(p, _)
            | A::EndOther(p, _)
            | A::EndOwn(p)
            | A::TakeAnother(p) => {
                (state.processes[usize::from(p)].life == Life::Running).then_some(())?;
                self.act(&mut next, p, action)?;
            }
        }
        Some(next)
    }

    /// What a running process does.
    fn act(&self, next: &mut State, p: u8, action: Action) -> Option<()> {
        use Action as A;
        let me = usize::from(p);
        let Process { id, locked, confirmed, settled, in_flight, delivered, doubt, .. } = next.processes[me];
        let bug = |bug| self.bug == Some(bug);
        match action {
            A::Place(_, m, with_slot) => {
                // Each message is one caller's, who sends it to one process.
                let unplaced = next.rows[usize::from(m)].is_none() && next.placing[usize::from(m)].is_none();
                (unplaced && m % PROCESSES == p).then_some(())?;
                next.placing[usize::from(m)] = Some((p, if with_slot { id } else { 0 }));
            }
            A::Claim(_, m, answered) => {
                let row = next.rows[usize::from(m)].as_mut().filter(|row| !row.published)?;
                let select = bug(Bug::ReloadBySelect) && row.owner == id;
                let nobodys = next.ended.contains(row.owner) || bug(Bug::ClaimFromLiving);
                ((nobodys && row.owner != id) || select).then_some(())?;
                row.owner = id;
                if answered {
                    self.learn(next, p, held(m, id));
                } else {
                    (next.lost_answers < self.lost_answers).then_some(())?;
                    next.lost_answers += 1;
                    next.processes[me].doubt = true;
                }
            }
            A::Answer(_, h) => {
                next.processes[me].answers = next.processes[me].answers.without(h);
                self.learn(next, p, h);
            }
            A::HandOver(_, h) => {
                (confirmed || bug(Bug::HandOverUnconfirmed)).then_some(())?;
                let process = &mut next.processes[me];
                process.memory = process.memory.without(h);
                if id_of(h) == id {
                    process.in_flight = process.in_flight.with(h);
                }
            }
            A::Deliver(_, h) => {
                let process = &mut next.processes[me];
                process.in_flight = process.in_flight.without(h);
                process.delivered = process.delivered.with(h);
                let copies = &mut next.copies[usize::from(message_of(h))];
                *copies = (*copies + 1).min(2);
            }
            A::Mark(_, h) => {
                next.processes[me].delivered = delivered.without(h);
                if let Some(row) = next.rows[usize::from(message_of(h))].as_mut().filter(|row| row.owner == id_of(h)) {
                    row.published = true;
                }
            }
            A::Settle(_) => {
                (locked && !settled).then_some(())?;
                next.processes[me].settled = true;
            }
            A::Resume(_) => {
                (!locked && !next.ended.contains(id)).then_some(())?;
                let process = &mut next.processes[me];
                process.locked = true;
                process.confirmed = true;
            }
            A::SeeFree(_, other) => {
                let free = other != id && !next.ended.contains(other) && !next.lock_is_held(other);
                (locked && free && !next.processes[me].seen_free.contains(other)).then_some(())?;
                next.processes[me].seen_free = next.processes[me].seen_free.with(other);
            }
            A::EndOther(_, other) => {
                let free = other != id && !next.ended.contains(other) && !next.lock_is_held(other);
                let seen = next.processes[me].seen_free.contains(other) || bug(Bug::OneLook);
                (locked && settled && free && seen).then_some(())?;
                // `takeover_after` lies between the looks: twice as long as any confirmation is trusted.
                let trusted =
                    next.processes.iter().any(|one| one.life != Life::Dead && one.id == other && one.confirmed);
                (!trusted || bug(Bug::OneLook)).then_some(())?;
                next.ended = next.ended.with(other);
                // Its session was lost for longer than takeover_after: what it had in flight is excused.
                for process in next.processes {
                    for h in process.in_flight.iter().chain(process.delivered.iter()).filter(|h| id_of(*h) == other) {
                        next.excused = next.excused.with(message_of(h));
                    }
                }
            }
            A::EndOwn(_) => {
                let landed = in_flight.is_empty() && delivered.is_empty();
                let ready = locked && doubt && !next.ended.contains(id) && (landed || bug(Bug::ReplaceInFlight));
                ready.then_some(())?;
                next.ended = next.ended.with(id);
                next.processes[me].confirmed &= bug(Bug::TrustWhileReplacing);
            }
            A::TakeAnother(_) => {
                let landed = in_flight.is_empty() && delivered.is_empty();
                (next.ended.contains(id) && (landed || bug(Bug::ReplaceInFlight))).then_some(())?;
                take_identity(next, p);
            }
            A::Commit(..) | A::GhostArrives(_) | A::GhostVanishes(_) | A::Start(_) | A::Wake(_) => return None,
            A::Expire(_) | A::LoseSession(_) | A::Kill(_) | A::Pause(_) => return None,
        }
        Some(())
    }

    /// `Queue::push`: what belongs to an identity that has ended meanwhile stays out, and so does
    /// what was written without a slot.
    fn learn(&self, next: &mut State, p: u8, h: u8) {
        let process = &mut next.processes[usize::from(p)];
        let enter = id_of(h) == process.id || (self.bug == Some(Bug::EnqueueForEnded) && id_of(h) != 0);
        if enter {
            process.memory = process.memory.with(held(message_of(h), process.id));
        }
    }
}

/// `identity::take`: locked before it is visible. What is in memory belongs to the identity before
/// and is dropped where it is met; forgetting it here is the same and fewer states.
fn take_identity(next: &mut State, p: u8) {
    let id = next.next_id;
    next.next_id += 1;
    let process = &mut next.processes[usize::from(p)];
    process.id = id.min(IDENTITIES - 1);
    process.locked = true;
    process.confirmed = true;
    process.settled = false;
    process.doubt = false;
    process.memory = Held::EMPTY;
    process.seen_free = Set::<u8>::EMPTY;
}

fn kill(next: &mut State, p: u8) -> Option<()> {
    let process = &mut next.processes[usize::from(p)];
    (process.life != Life::Dead).then_some(())?;
    for h in process.in_flight.iter() {
        next.ghosts = next.ghosts.with(message_of(h));
    }
    for h in process.in_flight.iter().chain(process.delivered.iter()) {
        next.excused = next.excused.with(message_of(h));
    }
    *process = Process {
        life: Life::Dead,
        locked: false,
        confirmed: false,
        settled: false,
        answers: Held::EMPTY,
        memory: Held::EMPTY,
        in_flight: Held::EMPTY,
        delivered: Held::EMPTY,
        doubt: false,
        seen_free: Set::<u8>::EMPTY,
        ..*process
    };
    Some(())
}

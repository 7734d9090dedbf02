//! What can happen next.

use stateright::{Model, Property};

use crate::{
    Action, Adoption, Faults, IDENTITIES, Instance, Life, MESSAGES, Message, OwnLog, PROCESSES, Process, Protocol, Set,
    State,
};

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let fresh = |id| Process {
            life: Life::Running,
            id,
            locked: true,
            confirmed: true,
            doubt: false,
            seen_free: Set::EMPTY,
            own: OwnLog::default(),
            adoptions: [Adoption::default(); IDENTITIES],
            seen: Set::EMPTY,
            memory: Set::EMPTY,
            in_flight: Set::EMPTY,
            delivered: Set::EMPTY,
            refused: Set::EMPTY,
        };
        vec![State {
            processes: [fresh(0), fresh(1)],
            instances: [Instance::default(); IDENTITIES],
            messages: [Message::default(); MESSAGES],
            next_id: 2,
            entered_twice: false,
            faults: Faults::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        use Action as A;
        for m in 0..self.messages {
            for slot in [true, false] {
                actions.extend([A::Place { m, slot }, A::Repeat { m, slot }]);
            }
            for a in [0, 1] {
                actions.extend([A::Lock { m, a }, A::Snapshot { m, a }, A::Commit { m, a }, A::Abort { m, a }]);
            }
            actions.extend([A::Answer { m }, A::LoseAnswer { m }, A::GhostArrives { m }, A::GhostVanishes { m }]);
            actions.extend([A::DropRows { m }, A::DropMarks { m }]);
        }
        for p in 0..PROCESSES {
            actions.extend([A::Start { p }, A::Kill { p }, A::Wake { p }, A::Expire { p }, A::LoseSession { p }]);
            if state.processes[p].life != Life::Running {
                continue;
            }
            actions.extend([A::Pause { p }, A::Resume { p }, A::Doubt { p }]);
            actions.extend([A::EndOwn { p }, A::TakeAnother { p }]);
            actions.extend([A::NextPage { p, whole: true }, A::NextPage { p, whole: false }]);
            actions.extend([A::LatePage { p }, A::PageRead { p }, A::LoseOwnPage { p }]);
            for m in state.processes[p].hands().iter() {
                actions.extend([A::HandOver { p, m }, A::Deliver { p, m }, A::Refuse { p, m }, A::Reject { p, m }]);
                actions.extend([A::Mark { p, m, answered: true }, A::Mark { p, m, answered: false }]);
            }
            for log in 0..usize::from(state.next_id) {
                actions.extend([A::SeeFree { p, id: log }, A::EndOther { p, id: log }]);
                actions.extend([A::Adopt { p, log, answered: true }, A::Adopt { p, log, answered: false }]);
                if state.processes[p].adoptions[log].held {
                    actions.extend([A::List { p, log }, A::Close { p, log }, A::Done { p, log }]);
                    actions.extend([A::ReadPage { p, log }, A::PageArrives { p, log }, A::LosePage { p, log }]);
                }
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.step(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        crate::properties::all()
    }
}

impl Protocol {
    /// The state after an action; none where the action is not possible.
    #[must_use]
    pub fn step(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        self.act(&mut next, action)?;
        next.forget_empty_logs();
        Some(next)
    }

    fn act(&self, next: &mut State, action: Action) -> Option<()> {
        use Action as A;
        match action {
            A::Place { m, slot } => self.place(next, m, slot),
            A::Repeat { m, slot } => self.repeat(next, m, slot),
            A::Lock { m, a } => Self::lock(next, m, a),
            A::Snapshot { m, a } => self.snapshot(next, m, a),
            A::Commit { m, a } => Self::commit(next, m, a),
            A::Abort { m, a } => self.abort(next, m, a),
            A::Answer { m } => self.answer(next, m),
            A::LoseAnswer { m } => self.lose_answer(next, m),
            A::NextPage { p, whole } => self.next_page(next, p, whole),
            A::LatePage { p } => self.late_page(next, p),
            A::PageRead { p } => Self::page_read(next, p),
            A::LoseOwnPage { p } => self.lose_own_page(next, p),
            A::HandOver { p, m } => self.hand_over(next, p, m),
            A::Deliver { p, m } => Self::deliver(next, p, m),
            A::GhostArrives { m } => Self::ghost(next, m, true),
            A::GhostVanishes { m } => Self::ghost(next, m, false),
            A::Mark { p, m, answered } => self.mark(next, p, m, answered),
            A::Refuse { p, m } => self.refuse(next, p, m),
            A::Reject { p, m } => Self::reject(next, p, m),
            A::Adopt { p, log, answered } => self.adopt(next, p, log, answered),
            A::List { p, log } => self.list(next, p, log),
            A::Close { p, log } => Self::close(next, p, log),
            A::ReadPage { p, log } => self.read_page(next, p, log),
            A::PageArrives { p, log } => self.page_arrives(next, p, log),
            A::LosePage { p, log } => self.lose_page(next, p, log),
            A::Done { p, log } => self.done(next, p, log),
            A::Expire { p } => Self::expire(next, p),
            A::Resume { p } => Self::resume(next, p),
            A::SeeFree { p, id } => Self::see_free(next, p, id),
            A::EndOther { p, id } => self.end_other(next, p, id),
            A::Doubt { p } => self.doubt(next, p),
            A::EndOwn { p } => self.end_own(next, p),
            A::TakeAnother { p } => self.take_another(next, p),
            A::Start { p } => Self::start(next, p),
            A::DropRows { m } => self.drop_rows(next, m),
            A::DropMarks { m } => self.drop_marks(next, m),
            A::Kill { p } => self.kill(next, p),
            A::Pause { p } => self.pause(next, p),
            A::Wake { p } => Self::wake(next, p),
            A::LoseSession { p } => self.lose_session(next, p),
        }
    }
}

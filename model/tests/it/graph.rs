//! All states that can be reached, in the order of how many steps it takes, and whether what was begun there can
//! still be brought to its end. The checker of stateright keeps no states, and cannot ask that.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use model::{Action, Protocol, State};
use stateright::Model;

pub struct Graph {
    pub states: Vec<State>,
    before: Vec<u32>,
    /// The steps that are no fault: where to, and where from.
    steps: Vec<(u32, u32)>,
}

/// A property that does not hold, and how it comes to that.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    pub property: &'static str,
    pub path: Vec<Action>,
}

impl Graph {
    /// Explores until a property does not hold, or everything is seen. Only the steps that are
    /// `relied_on` are to bring things to their end.
    pub fn explore(protocol: &Protocol, relied_on: impl Fn(Action) -> bool) -> Result<Self, Violation> {
        let properties = protocol.properties();
        let first = protocol.init_states().remove(0);
        let hasher = RandomState::new();
        // By hash: that two of ten million states have the same of 64 bits is not to be expected.
        let mut numbers: HashMap<u64, u32, BuildHasherDefault<Hashed>> = HashMap::default();
        numbers.insert(hasher.hash_one(first), 0);
        let mut graph = Self { states: vec![first], before: vec![0], steps: Vec::new() };
        let mut actions = Vec::new();
        let mut here = 0;
        while let Some(state) = graph.states.get(here).copied() {
            if let Some(property) = properties.iter().find(|property| !(property.condition)(protocol, &state)) {
                return Err(Violation { property: property.name, path: graph.path(protocol, here) });
            }
            protocol.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let Some(next) = protocol.step(&state, action) else { continue };
                let there = match numbers.entry(hasher.hash_one(next)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(unknown) => {
                        graph.states.push(next);
                        graph.before.push(number(here));
                        *unknown.insert(number(graph.states.len() - 1))
                    }
                };
                if next.faults == state.faults && relied_on(action) {
                    graph.steps.push((there, number(here)));
                }
            }
            here += 1;
        }
        graph.steps.sort_unstable();
        Ok(graph)
    }

    /// The first state from which no way leads to a good one.
    pub fn stuck(&self, good: impl Fn(&State) -> bool) -> Option<usize> {
        let mut reached = vec![false; self.states.len()];
        let mut to_visit: Vec<usize> = (0..self.states.len()).filter(|n| good(&self.states[*n])).collect();
        while let Some(here) = to_visit.pop() {
            if !std::mem::replace(&mut reached[here], true) {
                let there = number(here);
                let first = self.steps.partition_point(|step| step.0 < there);
                let before = self.steps[first..].iter().take_while(|step| step.0 == there);
                to_visit.extend(before.map(|step| step.1 as usize));
            }
        }
        reached.iter().position(|reached| !reached)
    }

    /// The shortest way to a state.
    pub fn path(&self, protocol: &Protocol, to: usize) -> Vec<Action> {
        let mut path = Vec::new();
        let mut here = to;
        while here != 0 {
            let before = self.before[here] as usize;
            let mut actions = Vec::new();
            protocol.actions(&self.states[before], &mut actions);
            let leads_here = |action: &Action| protocol.step(&self.states[before], *action) == Some(self.states[here]);
            path.extend(actions.into_iter().find(leads_here));
            here = before;
        }
        path.reverse();
        path
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than four thousand million states")
}

/// What is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole numbers are hashed")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

//! Walks at random. Where there is too much to see all of it, breadth first sees the beginning, and these the end.
//! The simulation of stateright tells no path that could be walked again.

use std::time::{Duration, Instant};

use model::{Action, Protocol};
use stateright::Model;

use crate::graph::Violation;

/// Longer than any run that does not go round in circles.
const STEPS: usize = 150;

/// Walks until a property does not hold, or the time is over, and says what it does.
pub fn walk(protocol: &Protocol, seed: u64, time: Duration, mut does: impl FnMut(Action)) -> Result<(), Violation> {
    let properties = protocol.properties();
    let (begin, mut random) = (Instant::now(), seed);
    while begin.elapsed() < time {
        let mut state = protocol.init_states().remove(0);
        let mut path: Vec<Action> = Vec::new();
        let mut actions = Vec::new();
        for _ in 0..STEPS {
            actions.clear();
            protocol.actions(&state, &mut actions);
            let next = loop {
                if actions.is_empty() {
                    break None;
                }
                let action = actions.swap_remove(below(actions.len(), &mut random));
                let Some(next) = protocol.step(&state, action) else { continue };
                // Else every walk would spend its faults before anything has begun.
                if next.faults == state.faults || below(12, &mut random) == 0 {
                    path.push(action);
                    does(action);
                    break Some(next);
                }
            };
            let Some(next) = next else { break };
            state = next;
            if let Some(property) = properties.iter().find(|property| !(property.condition)(protocol, &state)) {
                return Err(Violation { property: property.name, path });
            }
        }
    }
    Ok(())
}

/// SplitMix64.
fn below(bound: usize, random: &mut u64) -> usize {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let bound = u64::try_from(bound).expect("a number of actions");
    usize::try_from((mixed ^ (mixed >> 31)) % bound).expect("below a usize")
}

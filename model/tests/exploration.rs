//! Explores the protocol. MODEL_SECONDS=120 gives the two messages two minutes instead of ten seconds.

use std::{collections::HashMap, time::Duration};

use model::{Action, Bug, IDENTITIES, Protocol, State};
use stateright::{Checker, HasDiscoveries, Model, StateRecorder};

const WITH_EVERY_FAULT: Protocol =
    Protocol { messages: 1, kills: 1, pauses: 1, lost_sessions: 2, lost_answers: 1, bug: None };

#[test]
fn one_message_and_two_processes_survive_every_fault_in_every_order() {
    let (recorder, states) = StateRecorder::new_with_accessor();
    let checker = WITH_EVERY_FAULT.checker().threads(2).visitor(recorder).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
    assert_eq!(stuck(&WITH_EVERY_FAULT, states()), None, "a committed message stays unannounced for ever");
}

#[test]
fn two_messages_survive_as_far_as_time_goes() {
    let seconds = std::env::var("MODEL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let protocol = Protocol { messages: 2, ..WITH_EVERY_FAULT };
    let checker = protocol.checker().threads(2).timeout(Duration::from_secs(seconds)).spawn_bfs().join();
    println!("{} states in {seconds} s", checker.unique_state_count());
    checker.assert_no_discovery("no duplicate outside what the guarantees allow");
    checker.assert_no_discovery("a row is in at most one living memory");
    checker.assert_no_discovery("nothing unplaced is on the topic");
}

#[test]
fn every_planted_fault_is_found() {
    // One of them shows only where one message is in flight while another is in doubt.
    let without_crashes = Protocol { messages: 2, kills: 0, pauses: 0, lost_sessions: 1, ..WITH_EVERY_FAULT };
    for bug in [
        Bug::ReloadBySelect,
        Bug::HandOverUnconfirmed,
        Bug::OneLook,
        Bug::EnqueueForEnded,
        Bug::ClaimFromLiving,
        Bug::ReplaceInFlight,
        Bug::TrustWhileReplacing,
    ] {
        let checker = Protocol { bug: Some(bug), ..without_crashes }
            .checker()
            .threads(2)
            .finish_when(HasDiscoveries::Any)
            .target_state_count(5_000_000)
            .spawn_bfs()
            .join();
        assert!(!checker.discoveries().is_empty(), "{bug:?} was not found");
    }
}

/// A state from which, without further faults, no way leads to every message being published.
fn stuck(protocol: &Protocol, states: Vec<State>) -> Option<State> {
    let faultless = Protocol { kills: 0, pauses: 0, lost_sessions: 0, lost_answers: 0, ..*protocol };
    let number: HashMap<State, usize> = states.iter().copied().zip(0..).collect();
    let mut before = vec![Vec::new(); states.len()];
    let mut actions: Vec<Action> = Vec::new();
    for (state, here) in &number {
        actions.clear();
        faultless.actions(state, &mut actions);
        for next in actions.iter().filter_map(|action| faultless.step(state, *action)) {
            if let Some(there) = number.get(&next) {
                before[*there].push(*here);
            }
        }
    }
    let mut good = vec![false; states.len()];
    let mut to_visit: Vec<_> = (0..states.len()).filter(|n| states[*n].is_done(protocol.messages)).collect();
    while let Some(here) = to_visit.pop() {
        if !std::mem::replace(&mut good[here], true) {
            to_visit.append(&mut before[here]);
        }
    }
    // Where identities have run out the model ends, not the protocol.
    number.into_iter().find(|(state, here)| state.next_id < IDENTITIES && !good[*here]).map(|(state, _)| state)
}

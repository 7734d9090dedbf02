use std::{collections::HashMap, mem::discriminant, time::Duration};

use model::{Action, Bug, Faults, Protocol, State};
use stateright::{Checker, Model};

use crate::{graph::Graph, walk::walk};

const NONE: Faults =
    Faults { kills: 0, pauses: 0, lost_sessions: 0, lost_answers: 0, aborts: 0, refusals: 0, doubts: 0, drops: 0 };

/// All but `LoseOwnPage`, which changes nothing.
const KINDS_OF_ACTIONS: usize = 39;

const fn protocol(messages: usize, limits: Faults) -> Protocol {
    Protocol { messages, writers: [0, 0], limits, bug: None }
}

#[test]
fn a_message_survives_a_kill_a_pause_a_lost_session_and_a_lost_answer_in_every_order() {
    survives(&protocol(1, Faults { kills: 1, pauses: 1, lost_sessions: 1, lost_answers: 1, ..NONE }));
}

#[test]
fn a_message_survives_a_replaced_identity_a_lost_session_and_a_lost_answer_in_every_order() {
    survives(&protocol(1, Faults { doubts: 1, lost_sessions: 1, lost_answers: 1, ..NONE }));
}

#[test]
fn a_message_that_is_refused_by_database_or_broker_stays_settled_when_its_partition_goes() {
    survives(&protocol(1, Faults { kills: 1, lost_answers: 1, aborts: 1, refusals: 1, drops: 1, ..NONE }));
}

#[test]
fn two_messages_of_a_log_survive_each_fault() {
    let with_answers = Faults { lost_answers: 1, ..NONE };
    survives(&protocol(2, Faults { aborts: 1, refusals: 1, ..with_answers }));
    survives(&protocol(2, Faults { drops: 2, kills: 1, ..NONE }));
    survives(&protocol(2, Faults { doubts: 1, ..NONE }));
    survives(&protocol(2, Faults { lost_sessions: 1, ..NONE }));
}

#[test]
fn two_messages_of_two_logs_survive_a_kill_or_a_lost_session() {
    for limits in [Faults { kills: 1, ..NONE }, Faults { lost_sessions: 1, ..NONE }] {
        survives(&Protocol { writers: [0, 1], ..protocol(2, limits) });
    }
}

#[test]
#[ignore = "a minute"]
fn two_messages_of_a_log_survive_each_fault_with_a_lost_answer() {
    let with_answers = Faults { lost_answers: 1, ..NONE };
    survives(&protocol(2, Faults { kills: 1, ..with_answers }));
    survives(&protocol(2, Faults { doubts: 1, ..with_answers }));
    survives(&protocol(2, Faults { lost_sessions: 1, ..with_answers }));
}

#[test]
fn two_messages_survive_every_fault_at_once_as_far_as_time_goes() {
    let time = Duration::from_secs(seconds()) / 2;
    // Breadth first sees how everything begins, in memory that grows by some 4 GiB for 10 million states.
    for protocol in with_every_fault() {
        let checker = protocol.checker().threads(2).timeout(time / 2).target_state_count(40_000_000).spawn_bfs().join();
        println!("{} states in {:?}", checker.unique_state_count(), time / 2);
        for property in protocol.properties() {
            checker.assert_no_discovery(property.name);
        }
    }
    // Walks see how it ends.
    std::thread::scope(|scope| {
        let walks = with_every_fault().into_iter().zip(1..);
        let walks: Vec<_> =
            walks.map(|(protocol, seed)| scope.spawn(move || walks_well(&protocol, seed, time))).collect();
        walks.into_iter().for_each(|walk| walk.join().expect("a property does not hold"));
    });
}

fn walks_well(protocol: &Protocol, seed: u64, time: Duration) {
    let mut seen = HashMap::new();
    let outcome = walk(protocol, seed, time, |action| *seen.entry(discriminant(&action)).or_insert(0_u64) += 1);
    println!("{} steps of {} kinds in {time:?}", seen.values().sum::<u64>(), seen.len());
    assert_eq!(outcome, Ok(()), "a property does not hold");
    assert_eq!(seen.len(), KINDS_OF_ACTIONS, "something never happens, and what comes of it is not seen");
}

/// Of one log, and of two.
fn with_every_fault() -> [Protocol; 2] {
    let faults = Faults { kills: 1, pauses: 1, lost_sessions: 2, lost_answers: 2, ..NONE };
    let of_one_log = protocol(2, Faults { aborts: 1, refusals: 1, doubts: 1, drops: 2, ..faults });
    [of_one_log, Protocol { writers: [0, 1], ..of_one_log }]
}

fn seconds() -> u64 {
    std::env::var("MODEL_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

#[test]
fn a_placement_that_hangs_for_ever_holds_up_no_other_message() {
    for limits in [
        Faults { aborts: 1, lost_answers: 1, ..NONE },
        Faults { kills: 1, ..NONE },
        Faults { lost_sessions: 1, ..NONE },
        Faults { doubts: 1, ..NONE },
    ] {
        for hangs in [0, 1] {
            assert_eq!(held_up(&protocol(2, limits), hangs), None, "message {hangs} holds up another");
        }
    }
}

#[test]
fn a_message_held_up_by_another_is_found() {
    let waits = Protocol { bug: Some(Bug::CursorWaits), ..protocol(2, NONE) };
    assert!(held_up(&waits, 0).is_some(), "a cursor that waits was not found");
    let passes_once = Protocol { bug: Some(Bug::PassOnce), ..protocol(2, Faults { doubts: 1, ..NONE }) };
    assert!(held_up(&passes_once, 0).is_some(), "an adopter that passes once was not found");
}

fn survives(protocol: &Protocol) {
    let graph = Graph::explore(protocol, |_| true).expect("a property does not hold");
    println!("{} states", graph.states.len());
    let stuck = graph.stuck(|state| state.is_complete(protocol.messages));
    assert_eq!(stuck.map(|n| graph.path(protocol, n)), None, "what was begun cannot be brought to its end");
}

/// A way to where a committed message waits for a placement of another one.
fn held_up(protocol: &Protocol, hangs: usize) -> Option<Vec<Action>> {
    let graph =
        Graph::explore(protocol, |action| of_placement(action) != Some(hangs)).expect("a property does not hold");
    println!("{} states", graph.states.len());
    let other = 1 - hangs;
    let stuck = graph.stuck(|state: &State| {
        let message = &state.messages[other];
        message.row.is_none() || message.was_settled()
    });
    stuck.map(|n| graph.path(protocol, n))
}

fn of_placement(action: Action) -> Option<usize> {
    match action {
        Action::Place { m, .. } | Action::Repeat { m, .. } | Action::Answer { m } => Some(m),
        Action::Lock { m, .. } | Action::Snapshot { m, .. } | Action::Commit { m, .. } | Action::Abort { m, .. } => {
            Some(m)
        }
        _ => None,
    }
}

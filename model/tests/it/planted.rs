use model::{Bug, Faults, Protocol};

use crate::graph::Graph;

/// How many messages and which faults it takes.
fn needs(bug: Bug) -> (usize, Faults) {
    let none = Faults::default();
    match bug {
        Bug::ReloadBySelect | Bug::PageOfUnderWay | Bug::ForgetLate | Bug::Steal => (1, none),
        Bug::Overtake => (2, none),
        Bug::CursorGoesBack => (2, Faults { lost_answers: 1, ..none }),
        Bug::OneLook => (1, Faults { lost_sessions: 1, ..none }),
        Bug::CloseBySnapshot => (1, Faults { lost_answers: 1, doubts: 1, ..none }),
        Bug::SettleUnknown => (2, Faults { lost_answers: 1, ..none }),
        Bug::SettleRefused => (2, Faults { kills: 1, refusals: 1, ..none }),
        Bug::SettleGaps => (2, Faults { doubts: 1, ..none }),
        Bug::DropEarly => (1, Faults { drops: 1, ..none }),
        // What is held up by another is looked for elsewhere.
        Bug::CursorWaits | Bug::PassOnce => (0, none),
        _ => (1, Faults { doubts: 1, ..none }),
    }
}

#[test]
fn every_planted_fault_is_found() {
    for bug in Bug::ALL {
        let (messages, limits) = needs(bug);
        if messages == 0 {
            continue;
        }
        let protocol = Protocol { messages, writers: [0, 0], limits, bug: Some(bug) };
        let (steps, found) = match Graph::explore(&protocol, |_| true) {
            Err(violation) => (violation.path.len(), violation.property),
            Ok(graph) => {
                let stuck = graph.stuck(|state| state.is_complete(messages));
                let stuck = stuck.unwrap_or_else(|| panic!("{bug:?} was not found"));
                (graph.path(&protocol, stuck).len(), "can no longer be brought to its end")
            }
        };
        println!("{bug:?}: {steps} steps, {found}");
    }
}

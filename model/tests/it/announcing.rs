//! What is told to be announced is, whatever the clock does.

use model::announcing::{Announcing, Fault};
use stateright::{Checker, Model};

#[test]
fn what_is_told_is_never_before_a_message_of_an_earlier_time_that_is_not_announced() {
    for steps_back in 0..=1 {
        let checker = Announcing { messages: 1, steps_back, fault: None }.checker().threads(2).spawn_bfs().join();
        println!("{} states", checker.unique_state_count());
        checker.assert_properties();
    }
}

#[test]
#[ignore = "minutes"]
fn two_messages_do_not_help_each_other() {
    let checker = Announcing { messages: 2, steps_back: 1, fault: None }.checker().threads(2).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn every_fault_planted_in_it_is_found() {
    for fault in Fault::ALL {
        let protocol = Announcing { messages: 1, steps_back: 1, fault: Some(fault) };
        let checker = protocol.checker().threads(2).spawn_bfs().join();
        let found = checker.discovery("everything of an earlier time than was told is announced");
        let found = found.unwrap_or_else(|| panic!("{fault:?} was not found"));
        println!("{fault:?}: {} steps", found.into_actions().len());
    }
}

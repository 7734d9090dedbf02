//! What must never be.

use stateright::Property;

use crate::{IDENTITIES, LOG_LENGTH, MESSAGES, Protocol, State};

pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always("no duplicate outside what the guarantees allow", |_, state: &State| {
            state.messages.iter().all(|message| message.copies < 2 || message.excused)
        }),
        Property::always("a message is in at most one memory from which it may be handed over", |_, state: &State| {
            (0..MESSAGES).all(|m| state.memories_of(m) < 2)
        }),
        Property::always("a message enters the memory of an identity once", |_, state: &State| !state.entered_twice),
        Property::always("nothing that is not committed is on the topic", |_, state: &State| {
            state.messages.iter().all(|message| message.copies == 0 || message.row.is_some())
        }),
        Property::always("order and message are written both, or neither", |_, state: &State| {
            state.messages.iter().all(|message| message.order == message.row.is_some())
        }),
        Property::always("nothing unsettled is dropped", |_, state: &State| {
            state.messages.iter().all(|message| message.row.is_none_or(|row| !row.dropped) || message.was_settled())
        }),
        Property::always("everything below settled_to is settled, or can never be committed", |_, state: &State| {
            (0..IDENTITIES).all(|log| (0..usize::from(state.settled_to(log))).all(|seq| is_settled(state, log, seq)))
        }),
        Property::always("in a log that is done everything is settled, and nothing can come", |_, state: &State| {
            let done = (0..IDENTITIES).filter(|log| state.instances[*log].done);
            done.into_iter().all(|log| (0..LOG_LENGTH).all(|seq| is_settled(state, log, seq)))
        }),
        Property::always("a message that waits for an operator is not on the topic", |_, state: &State| {
            state.messages.iter().all(|message| !message.failed || message.copies == 0 || message.excused)
        }),
    ]
}

fn is_settled(state: &State, log: usize, seq: usize) -> bool {
    match state.at(log, seq) {
        Some(m) => state.messages[m].was_settled(),
        None => !state.may_commit(log, seq),
    }
}

//! A message of a batch as the quarantine knows it.

use std::borrow::Cow;

use super::batch::{Batch, Message};
use crate::{
    place::TopicPlace,
    quarantine::{Identities, Kept},
    rejection::Rejected,
};

pub(super) fn place<'a>(batch: &'a Batch, message: &Message) -> TopicPlace<'a> {
    let place = batch.place_of(message);
    TopicPlace { topic: &place.topic, partition: place.partition, offset: message.offset }
}

pub(super) fn to_keep<'a>(batch: &'a Batch, message: &'a Message, why: Cow<'a, Rejected>) -> Kept<'a> {
    let Identities { read, unread } = batch.identities(message);
    let identity = why.message_ref.and(read).unwrap_or(unread);
    Kept { place: place(batch, message), identity, content: batch.content(message), why }
}

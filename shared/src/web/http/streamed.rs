//! An answer that is sent bit by bit. Its request is under way until its end: the connection is not idle meanwhile,
//! and is neither closed for its age nor given to another caller.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};

use super::connection::UnderWay;

#[derive(Debug)]
pub(super) struct Streamed {
    body: BoxBody,
    under_way: UnderWay,
}

impl Streamed {
    pub(super) fn new(body: BoxBody, under_way: UnderWay) -> Self {
        Self { body, under_way }
    }
}

impl MessageBody for Streamed {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        // Otherwise it would be noticed when something is sent next, and what is held for the caller is held until then.
        if self.under_way.phase().is_ended() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_next(cx)
    }
}

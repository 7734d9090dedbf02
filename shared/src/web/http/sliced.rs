//! A large answer, handed over slice by slice. The framework copies what it is handed into the connection's buffer and
//! keeps it there while the caller does not read: of an answer in one piece there would be a copy for each connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};
use tokio::time::Instant;

use super::connection::ANSWER_WITHIN;

/// The framework asks for more while it has less than 32 KiB that are not sent: with a slice, 48 KiB a connection.
const SLICE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Sliced {
    left: Bytes,
    /// Every slice on its own would be taken in time by a caller who takes a little now and then.
    until: Instant,
}

impl Sliced {
    /// The same answer, in slices where it is large.
    pub(super) fn of(body: BoxBody) -> BoxBody {
        if !matches!(body.size(), BodySize::Sized(bytes) if bytes > SLICE as u64) {
            return body;
        }
        match body.try_into_bytes() {
            Ok(left) => Self { left, until: Instant::now() + ANSWER_WITHIN }.boxed(),
            Err(stream) => stream,
        }
    }
}

impl MessageBody for Sliced {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        if self.until <= Instant::now() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let next = SLICE.min(self.left.len());
        Poll::Ready(Some(Ok(self.left.split_to(next))))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin};

    use super::*;

    #[tokio::test]
    async fn a_large_answer_comes_in_slices_and_within_its_time() {
        let whole = Bytes::from(vec![7; 2 * SLICE + 1]);
        let mut body = pin!(Sliced::of(whole.clone().boxed()));
        assert_eq!(body.size(), BodySize::Sized(whole.len() as u64));
        for length in [SLICE, SLICE, 1] {
            let slice = poll_fn(|cx| body.as_mut().poll_next(cx)).await.unwrap().unwrap();
            assert_eq!(slice.len(), length);
        }
        assert!(poll_fn(|cx| body.as_mut().poll_next(cx)).await.is_none());

        let mut late = pin!(Sliced { left: whole, until: Instant::now() });
        assert!(poll_fn(|cx| late.as_mut().poll_next(cx)).await.unwrap().is_err());
        assert!(Sliced::of(Bytes::from(vec![7; SLICE]).boxed()).try_into_bytes().is_ok(), "a small one is as it was");
    }
}

//! Which of a broker's answers is to which request. Both are preceded by their length in four bytes, a
//! request begins with the number of its kind in two, and answers come in the order of the requests.

use std::collections::VecDeque;

/// What has passed on one connection.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    requests: Frames,
    answers: Frames,
    /// Whether each request that has no answer yet is a Produce.
    open: VecDeque<bool>,
}

impl Exchange {
    pub(super) fn asked(&mut self, bytes: &[u8]) {
        let produce = |head: [u8; 6]| head[4..] == [0, 0];
        self.open.extend(self.requests.pass(bytes).into_iter().map(produce));
    }

    /// Whether an answer to a Produce begins in these bytes.
    pub(super) fn answers_produce(&mut self, bytes: &[u8]) -> bool {
        let begun = self.answers.pass(bytes).len().min(self.open.len());
        self.open.drain(..begun).any(|is_produce| is_produce)
    }
}

/// Cuts a stream of bytes, which comes in any pieces, into its frames.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    /// Of the present frame, behind its head.
    left: usize,
}

impl Frames {
    /// The heads that are complete with these bytes: the length, and two bytes behind it.
    fn pass(&mut self, mut bytes: &[u8]) -> Vec<[u8; 6]> {
        let mut heads = Vec::new();
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let (more, rest) = bytes.split_at((6 - self.head.len()).min(bytes.len()));
            self.head.extend(more);
            bytes = rest;
            if let Ok(head) = <[u8; 6]>::try_from(self.head.as_slice()) {
                let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                self.left = usize::try_from(length).unwrap().saturating_sub(2);
                self.head.clear();
                heads.push(head);
            }
        }
        heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_a_produce_is_found_however_the_bytes_are_cut() {
        let frame = |kind: u8, length: u8| [vec![0, 0, 0, length, 0, kind], vec![9; usize::from(length) - 2]].concat();
        let requests = [frame(3, 8), frame(0, 50), frame(3, 8)].concat();
        let answers = [frame(7, 20), frame(7, 10), frame(7, 30)].concat();
        for piece in 1..answers.len() {
            let mut exchange = Exchange::default();
            requests.chunks(piece).for_each(|bytes| exchange.asked(bytes));
            let found = answers.chunks(piece).filter(|bytes| exchange.answers_produce(bytes)).count();
            assert_eq!((found, exchange.open.len()), (1, 0), "{piece} bytes at a time");
        }
    }
}

//! The hash of a state, of which millions are taken: its few hundred small fields are put side by side first, and
//! hashed at once.

use std::hash::{Hash, Hasher};

use crate::State;

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { processes, instances, messages, next_id, entered_twice, faults } = self;
        let mut bytes = Bytes { bytes: [0; 256], length: 0 };
        (processes, instances, messages, next_id, entered_twice, faults).hash(&mut bytes);
        hasher.write(&bytes.bytes[..bytes.length]);
    }
}

struct Bytes {
    bytes: [u8; 256],
    length: usize,
}

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn write_u8(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// Which variant it is, or how long an array: below 256 all of them.
    fn write_isize(&mut self, number: isize) {
        self.write_u8(number.to_le_bytes()[0]);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u8(number.to_le_bytes()[0]);
    }

    fn finish(&self) -> u64 {
        unreachable!("the bytes are hashed by another")
    }
}

//! To which partition a key belongs: as librdkafka would choose, but known before a message is handed to it.

use shared::runtime::kafka;

/// How the partition of a key is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partitioner {
    /// librdkafka's own.
    Crc32,
    /// That of the Java clients.
    Murmur2,
}

impl Partitioner {
    pub(super) fn of(settings: &kafka::Settings) -> Self {
        match settings.property("partitioner") {
            Some(name) if name.starts_with("murmur2") => Self::Murmur2,
            _ => Self::Crc32,
        }
    }

    /// The partition of a key, of so many; `count` is positive.
    pub(super) fn partition(self, key: &[u8], count: i32) -> i32 {
        let hash = match self {
            Self::Crc32 => crc32fast::hash(key),
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
        };
        let count = u32::try_from(count).expect("a topic has partitions");
        i32::try_from(hash % count).expect("less than an i32")
    }
}

/// `MurmurHash2` with the seed of Kafka.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(key.len()).expect("a key is short");
    let mut hash = 0x9747_b28c ^ length;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut word = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |rest, byte| (rest << 8) | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of Kafka's `Utils.murmur2`.
    #[test]
    fn murmur2_is_that_of_kafka() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn crc32_is_that_of_librdkafka() {
        // The check value of CRC-32.
        assert_eq!(Partitioner::Crc32.partition(b"123456789", i32::MAX), (0xcbf4_3926_u32 % 0x7fff_ffff).cast_signed());
    }
}

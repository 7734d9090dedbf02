//! Where messages stand on topics.

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    pub topic: String,
    pub number: i32,
}

impl Partition {
    pub fn new(topic: impl Into<String>, number: i32) -> Self {
        Self { topic: topic.into(), number }
    }

    /// Its topics and numbers, for a statement.
    #[must_use]
    pub fn columns<'a>(partitions: impl IntoIterator<Item = &'a Self>) -> (Vec<&'a str>, Vec<i32>) {
        partitions.into_iter().map(|one| (one.topic.as_str(), one.number)).unzip()
    }
}

/// Where a message stands on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPlace<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

/// The next message of a partition is not the one that was expected. Often there never was one in
/// between: transactions and compaction leave holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    pub expected: i64,
    pub came: i64,
}

impl Jump {
    /// Up to where the topic does not have what was jumped over; `None` where it has it all: holes.
    #[must_use]
    pub fn lost_to(self, low: i64) -> Option<i64> {
        Some(low.min(self.came)).filter(|to| *to > self.expected)
    }
}

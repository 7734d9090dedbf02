//! The number of an identity.

/// An identity, which is also the name of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(i64);

impl InstanceId {
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

impl From<i64> for InstanceId {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

/// A set of numbers below eight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set(u8);

impl Set {
    pub const EMPTY: Self = Self(0);

    #[must_use]
    pub fn contains(self, one: impl Into<usize>) -> bool {
        self.0 & (1 << one.into()) != 0
    }

    pub fn insert(&mut self, one: impl Into<usize>) {
        self.0 |= 1 << one.into();
    }

    pub fn remove(&mut self, one: impl Into<usize>) {
        self.0 &= !(1 << one.into());
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8_usize).filter(move |one| self.contains(*one))
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut set = Self::EMPTY;
        numbers.into_iter().for_each(|one| set.insert(one));
        set
    }
}

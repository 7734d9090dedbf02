/// A set of small numbers as the bits of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set<B>(B);

macro_rules! set_of_bits {
    ($($bits:ty: $size:literal)*) => {$(
        impl Set<$bits> {
            pub const EMPTY: Self = Self(0);

            #[must_use]
            pub fn contains(self, one: u8) -> bool {
                self.0 & (1 << one) != 0
            }

            #[must_use]
            pub fn with(self, one: u8) -> Self {
                Self(self.0 | (1 << one))
            }

            #[must_use]
            pub fn without(self, one: u8) -> Self {
                Self(self.0 & !(1 << one))
            }

            #[must_use]
            pub fn is_empty(self) -> bool {
                self.0 == 0
            }

            pub fn iter(self) -> impl Iterator<Item = u8> {
                (0..$size).filter(move |one| self.contains(*one))
            }
        }
    )*};
}
set_of_bits!(u8: 8 u16: 16);

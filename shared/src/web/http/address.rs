//! Which addresses are one caller's.

use std::net::{IpAddr, Ipv6Addr};

/// Whoever has one address of version 6 has 2^64 of them. One of version 4 is itself, also where a listener for both
/// versions shows it inside one of version 6: all of those would be of one network, with `::1`.
pub(super) fn of_caller(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_caller() {
        let of = |text: &str| of_caller(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
        assert_ne!(of("::ffff:127.0.0.1"), of("::1"));
    }
}

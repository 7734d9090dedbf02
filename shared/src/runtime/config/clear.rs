//! What is sent in clear. On this machine nobody reads along; anywhere else somebody may, and has to be put up with
//! by a setting.

use std::fmt::Display;

use super::{Reader, WebUrl};

/// Whether what is sent to `host` does not leave this machine.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

impl Reader {
    /// Notes that something would be sent in clear: whoever only looks at the settings is told, nothing runs with them.
    pub(crate) fn in_clear(&mut self, key: &str, what: impl Display) {
        if self.matters(key) {
            self.in_clear.push(format!("{key}: {what}"));
        }
    }

    /// Notes an address of the web that somebody on the way could read or answer, unless `allowed_by` has it so.
    pub(crate) fn check_way_to(&mut self, key: &str, url: &WebUrl, allowed_by: &str) {
        let is_private = url.url().scheme() == "https" || url.url().host_str().is_some_and(is_this_machine);
        if !self.get::<bool>(allowed_by) && !is_private {
            self.in_clear(
                key,
                format_args!(
                    "must be a URL with https, for a host that is not this machine: with http whoever is on the way \
                     reads and changes what is sent; where the network is trusted set {allowed_by} = true"
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        for own in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.7.6", "::1", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in ["", "0.0.0.0", "10.0.0.1", "::", "postgres", "localhost.example", "127.0.0.1.example"] {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}

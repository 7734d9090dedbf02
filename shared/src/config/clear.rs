//! What is sent in clear. On this machine nobody reads along; anywhere else somebody may, and has to be put up with
//! by a setting.

use super::WebUrl;

/// Whether what is sent to `host` does not leave this machine.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

impl WebUrl {
    /// The rule of an address that is asked without anybody reading along or answering in its place, unless the
    /// setting `allowed_by` has it otherwise.
    pub(crate) fn is_private(&self, allows: bool, allowed_by: &str) -> Result<(), String> {
        let host = self.url().host_str().unwrap_or_default();
        if allows || self.url().scheme() == "https" || is_this_machine(host) {
            return Ok(());
        }
        Err(format!(
            "must be a URL with https, for a host that is not this machine: with http whoever is on the way reads and \
             changes what is sent; where the network is trusted set {allowed_by} = true"
        ))
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

//! Where a database is, and how the way there is protected.

use std::time::Duration;

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::url;
use crate::runtime::config::{Reader, Secret, Source, is_this_machine};

/// Told of a URL under which whoever listens on the way reads the password and everything else. A server that does not
/// want TLS gets both by `sslmode=prefer`, which is the default.
const IN_CLEAR: &str = "would send passwords and orders in clear to a host that is not this machine: write \
     sslmode=verify-full into its query, with sslrootcert=FILE for an authority of your own; where the network is \
     trusted set database.allow_plaintext = true";

/// A database's URL, or the file that has it: read anew for each connection, so that a password may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    source: Source,
    allows_clear: bool,
}

impl Address {
    /// The address under `key`.
    pub(super) fn read(settings: &mut Reader, key: &str) -> Self {
        Self::optional(settings, key).unwrap_or_else(|| {
            settings.mistake(key, "is required");
            Self { source: Source::Given(Secret::default()), allows_clear: false }
        })
    }

    /// The address under `key`, where there is one.
    pub fn optional(settings: &mut Reader, key: &str) -> Option<Self> {
        let allows_clear: bool = settings.get("database.allow_plaintext");
        let source = settings.secret(key, |url| url::options(url).map(drop))?;
        let is_clear =
            !allows_clear && source.read().and_then(|url| url::options(&url)).is_ok_and(|to| is_in_clear(&to));
        if is_clear {
            let by_file = format!("{key}_file");
            settings.in_clear(if matches!(source, Source::File(_)) { &by_file } else { key }, IN_CLEAR);
        }
        Some(Self { source, allows_clear })
    }

    /// What to connect with now.
    ///
    /// # Errors
    /// What is wrong with the file or the URL in it.
    pub fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        self.now().map(|(_, options)| options)
    }

    pub(super) fn now(&self) -> Result<(Secret, PgConnectOptions), sqlx::Error> {
        let read = self.source.read().and_then(|url| is_usable(&url, self.allows_clear).map(|options| (url, options)));
        read.map_err(|mistake| sqlx::Error::Configuration(format!("the URL of the database {mistake}").into()))
    }

    /// Whether it may change.
    pub(super) fn is_in_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }
}

fn is_usable(url: &Secret, allows_clear: bool) -> Result<PgConnectOptions, String> {
    // What is slow is a matter of metrics; a line of sqlx's would hold the whole statement.
    let options = url::options(url)?.log_slow_statements("off".parse().expect("it is a level"), Duration::ZERO);
    if allows_clear || !is_in_clear(&options) { Ok(options) } else { Err(IN_CLEAR.into()) }
}

fn is_in_clear(options: &PgConnectOptions) -> bool {
    let is_encrypted =
        matches!(options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    // Without a host in the URL the folder of the socket is the host: that of PGHOST, or the system's.
    let is_socket = options.get_socket().is_some() || options.get_host().starts_with('/');
    !is_encrypted && !is_socket && !is_this_machine(options.get_host())
}

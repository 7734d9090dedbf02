//! URLs of databases. What is wrong with one is said without any of its parts: each may be a secret.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::runtime::config::Secret;

const FORM: &str = "must be a URL like postgres://user@host:5432/database";
const SEVERAL: &str =
    "names several hosts, of which one may be a standby: give the one address that leads to the primary";
/// Those that are understood. Others would be ignored, and what was meant by them would not hold.
const PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// What to connect with.
///
/// # Errors
/// What the URL must be instead.
pub(super) fn options(url: &Secret) -> Result<PgConnectOptions, String> {
    let url = url.expose();
    let scheme = ["postgres://", "postgresql://"].into_iter().find(|scheme| url.starts_with(scheme)).ok_or(FORM)?;
    let rest = &url[scheme.len()..];
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    if rest.contains('#') {
        return Err("has a #, which ends a URL: in a name or a password it has to be percent-encoded, as %23".into());
    }
    if path.contains('@') || query.contains('@') {
        return Err("has an @ behind the host: a password with / or ? has to be percent-encoded".into());
    }
    let parameters: Vec<_> = query.split('&').filter(|one| !one.is_empty()).map(|one| one.split('=').next()).collect();
    if host.contains(',') {
        return Err(SEVERAL.into());
    }
    let is_known =
        |name: &&str| PARAMETERS.contains(name) || name.starts_with("options[") || name.starts_with("options%5B");
    if parameters.iter().flatten().any(|name| !is_known(name)) {
        return Err(format!("has a parameter that is not known; these are: {}", PARAMETERS.join(", ")));
    }
    if path.is_empty() && !parameters.contains(&Some("dbname")) {
        return Err("names no database: postgres://user@host:5432/database".into());
    }
    // With a user and no host, as libpq takes it: the host is a parameter then, or this machine.
    let complete =
        if host.is_empty() && !user.is_empty() { url.replacen("@/", "@localhost/", 1) } else { url.to_owned() };
    let options = PgConnectOptions::from_str(&complete).map_err(|_| FORM)?;
    // Whoever named it: a parameter, or PGHOST. In the URL itself it stays encoded.
    let host = options.get_host().to_ascii_lowercase();
    if options.get_socket().is_none() && (host.contains(',') || host.contains("%2c")) {
        return Err(SEVERAL.into());
    }
    Ok(options)
}

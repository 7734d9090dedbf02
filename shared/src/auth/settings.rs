use std::{path::Path, sync::Arc, time::Duration};

use super::{keys::Keys, token::Expected};
use crate::config::Reader;

/// The longest file of keys, in bytes: a set of a hundred RSA keys.
const FILE_LIMIT: u64 = 256 * 1024;

/// `auth.*`
#[derive(Clone, Debug)]
pub enum Settings {
    Disabled,
    File { expected: Expected, keys: Arc<Keys> },
    Issuer { expected: Expected, url: reqwest::Url, max_age: Duration },
}

impl Settings {
    #[must_use]
    pub fn needs_token(&self) -> bool {
        !matches!(self, Self::Disabled)
    }

    /// Reads the file of keys too: a mistake in it is one of the settings.
    pub fn read(s: &mut Reader) -> Self {
        let mode: String = s.checked("auth.mode", |mode: &String| match mode.as_str() {
            "jwt" | "disabled" => Ok(()),
            _ => Err("must be \"jwt\" or \"disabled\"".into()),
        });
        let leeway = s.within("auth.leeway", ..=Duration::from_secs(300), "at most 5m");
        let max_age = s.within("auth.jwks_max_age", Duration::from_secs(30).., "30s or longer");
        let url = s.optional("auth.jwks_url", |url: &String| issuer_url(url).map(|_| ()));
        let jwks_file = s.optional("auth.jwks_file", |_: &String| Ok(()));
        let public_key_file = s.optional("auth.public_key_file", |_: &String| Ok(()));
        if mode == "disabled" {
            // Known all the same, so that one switch is enough.
            s.optional("auth.issuer", |_: &String| Ok(()));
            s.optional("auth.audience", |_: &String| Ok(()));
            return Self::Disabled;
        }
        let expected = Expected { issuer: s.get("auth.issuer"), audience: s.get("auth.audience"), leeway };
        let read = |s: &mut Reader, key: &str, path: &str, parse: fn(&[u8]) -> Result<Keys, String>| {
            let keys = contents(Path::new(path)).and_then(|text| parse(&text));
            keys.map(|keys| Self::File { expected: expected.clone(), keys: Arc::new(keys) }).unwrap_or_else(|mistake| {
                s.mistake(key, mistake);
                Self::Disabled
            })
        };
        match (url, jwks_file, public_key_file) {
            (Some(url), None, None) => match issuer_url(&url) {
                Ok(url) => Self::Issuer { expected, url, max_age },
                // Noted when it was read.
                Err(_) => Self::Disabled,
            },
            (None, Some(path), None) => read(s, "auth.jwks_file", &path, Keys::from_jwks),
            (None, None, Some(path)) => read(s, "auth.public_key_file", &path, Keys::from_pem),
            _ => {
                s.mistake("auth.jwks_url, auth.jwks_file, auth.public_key_file", "exactly one of them is required");
                Self::Disabled
            }
        }
    }
}

fn issuer_url(text: &str) -> Result<reqwest::Url, String> {
    let url = reqwest::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    url.ok_or_else(|| "must be a URL with https or http, without a password".into())
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?.len();
    if size > FILE_LIMIT {
        return Err(format!("must not be larger than {FILE_LIMIT} bytes"));
    }
    std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))
}

use std::time::Duration;

use serde_json::Value;

use super::{
    key_file::{KeyFile, Parse},
    keys::Keys,
    mapping::Mapping,
    token::TokenRules,
};
use crate::runtime::config::{Reader, WebUrl};

/// `auth.*`
#[derive(Clone, Debug)]
pub enum Settings {
    Disabled,
    File { expected: TokenRules, file: KeyFile },
    Issuer { expected: TokenRules, url: reqwest::Url, max_age: Duration, max_stale: Duration },
}

impl Settings {
    /// What the pages are told of where a token has its scopes; none where nobody needs one.
    #[must_use]
    pub fn scopes(&self) -> Option<Value> {
        match self {
            Self::Disabled => None,
            Self::File { expected, .. } | Self::Issuer { expected, .. } => Some(expected.mapping.scopes()),
        }
    }

    /// Reads the file of keys too: a mistake in it is one of the settings.
    pub fn read(s: &mut Reader) -> Self {
        let mode: String = s.checked("auth.mode", |mode: &String| match mode.as_str() {
            "jwt" | "disabled" => Ok(()),
            _ => Err("must be \"jwt\" or \"disabled\"".into()),
        });
        let leeway = s.within("auth.leeway", ..=Duration::from_secs(300), "at most 5m");
        let max_age = s.within("auth.jwks_max_age", Duration::from_secs(30).., "30s or longer");
        let max_stale = s.checked("auth.jwks_max_stale", |stale: &Duration| {
            if *stale >= max_age { Ok(()) } else { Err("must not be shorter than auth.jwks_max_age".into()) }
        });
        let mapping = Mapping::read(s);
        let client_ids = s.optional("auth.client_ids", |_: &Vec<String>| Ok(())).unwrap_or_default();
        s.get::<bool>("auth.allow_plaintext");
        let url = s.optional("auth.jwks_url", |_: &WebUrl| Ok(()));
        if let Some(url) = &url {
            // Whoever answers in the issuer's place may issue any token.
            s.check_way_to("auth.jwks_url", url, "auth.allow_plaintext");
        }
        let jwks_file = s.optional("auth.jwks_file", |_: &String| Ok(()));
        let public_key_file = s.optional("auth.public_key_file", |_: &String| Ok(()));
        if mode == "disabled" {
            // Known all the same, so that one switch is enough.
            s.optional("auth.issuer", |_: &String| Ok(()));
            s.optional("auth.audience", |_: &Vec<String>| Ok(()));
            return Self::Disabled;
        }
        // Whoever names clients may have an issuer whose tokens have no audience.
        let audience = match s.optional("auth.audience", |_: &Vec<String>| Ok(())) {
            None if client_ids.is_empty() => s.get("auth.audience"),
            given => given.unwrap_or_default(),
        };
        let expected = TokenRules { issuer: s.get("auth.issuer"), audience, client_ids, leeway, mapping };
        let read = |s: &mut Reader, key: &str, path: &str, first: Parse, again: Parse| {
            let file = KeyFile::read(path.into(), first, again);
            file.map(|file| Self::File { expected: expected.clone(), file }).unwrap_or_else(|mistake| {
                s.mistake(key, mistake);
                Self::Disabled
            })
        };
        match (url, jwks_file, public_key_file) {
            (Some(url), None, None) => Self::Issuer { expected, url: url.url().clone(), max_age, max_stale },
            (None, Some(path), None) => read(s, "auth.jwks_file", &path, Keys::from_jwks, Keys::of_set),
            (None, None, Some(path)) => read(s, "auth.public_key_file", &path, Keys::from_pem, Keys::from_pem),
            _ => {
                s.mistake("auth.jwks_url, auth.jwks_file, auth.public_key_file", "exactly one of them is required");
                Self::Disabled
            }
        }
    }
}

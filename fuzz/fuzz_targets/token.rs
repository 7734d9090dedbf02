//! A token: whatever bytes come, only what the issuer has signed and what says everything that it has to
//! say names a caller. By its first byte an input is a whole header, claims that get signed, or the header
//! of a token with good claims.
#![no_main]

use std::sync::LazyLock;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use futures_util::FutureExt;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use shared::{web::auth::{Authentication, Settings}, runtime::config::Reader};
use testing::{AUDIENCE, ISSUER, Signer};

const GOOD_HEADER: &str = r#"{"alg":"EdDSA"}"#;

static KNOWN: LazyLock<(Signer, Authentication)> = LazyLock::new(|| {
    let signer = Signer::eddsa("key");
    let file = signer.home().join("settings.toml");
    let keys = signer.public_key_file();
    let settings =
        format!("[auth]\nissuer = '{ISSUER}'\naudience = '{AUDIENCE}'\npublic_key_file = '{}'", keys.display());
    std::fs::write(&file, settings).expect("the signer's folder can be written to");
    let defaults = "[auth]\nmode = 'jwt'\nleeway = '0s'\njwks_max_age = '5m'\njwks_max_stale = '1h'\n\
        scope_claims = 'scope,scp'\ncustomer_claim = 'customerRef'";
    let mut reader = Reader::new(defaults, "FUZZ", Some(&file)).expect("the file is TOML");
    let (authentication, _) = Authentication::new(Settings::read(&mut reader)).expect("it needs no client");
    reader.finish().expect("the settings are right");
    (signer, authentication)
});

fn caller_of(header: &[u8]) -> Option<(String, String)> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(header).ok()?);
    let caller = KNOWN.1.caller(&headers).now_or_never().expect("keys of a file are not waited for").ok()?;
    Some((caller.issuer, caller.subject))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => assert_eq!(caller_of(rest), None, "nobody can sign without the key"),
        1 => {
            let token = KNOWN.0.sign(GOOD_HEADER, rest);
            let Some((issuer, subject)) = caller_of(format!("Bearer {token}").as_bytes()) else { return };
            let claims: Value = serde_json::from_slice(rest).expect("claims are JSON");
            assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some(&*issuer), Some(&*subject)));
            assert!((1..=255).contains(&subject.chars().count()) && issuer == ISSUER);
            assert!(claims["exp"].as_f64().is_some_and(|exp| exp > 1_750_000_000.0));
            let audience = &claims["aud"];
            assert!(
                audience == AUDIENCE || audience.as_array().is_some_and(|all| all.iter().any(|one| one == AUDIENCE))
            );
        }
        _ => {
            let Ok(header) = std::str::from_utf8(rest) else { return };
            let claims = format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"x","exp":253402300000}}"#);
            let token = KNOWN.0.sign(header, claims);
            if caller_of(format!("Bearer {token}").as_bytes()).is_some() {
                let header: Value = serde_json::from_str(header).expect("a header is JSON");
                assert_eq!(header["alg"], "EdDSA");
                assert!(header.get("crit").is_none());
            }
        }
    }
});

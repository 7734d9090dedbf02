use actix_web::{http::header::HeaderValue, test::TestRequest};
use proptest::prelude::*;
use serde_json::{Value, json};
use testing::{AUDIENCE, ISSUER, Signer, bad_authorizations, wait_until};

use super::{mapping::Mapping, *};
use std::time::Duration;

fn by(keys: Result<Keys, String>, leeway: u64) -> Authentication {
    let settings = Settings::File { expected: expected(leeway), file: KeyFile::of(keys.unwrap()) };
    Authentication::new(settings).unwrap().0
}

pub(super) fn expected(leeway: u64) -> TokenRules {
    let scope_claims = vec!["scope".to_owned(), "scp".to_owned()];
    TokenRules {
        issuer: ISSUER.into(),
        audience: vec![AUDIENCE.into()],
        client_ids: Vec::new(),
        leeway: Duration::from_secs(leeway),
        mapping: Mapping { scope_claims, customer_claim: "customerRef".into(), ..Mapping::default() },
    }
}

fn by_key(signer: &Signer) -> Authentication {
    by(Keys::from_pem(signer.public_key().as_bytes()), 30)
}

async fn ask(authentication: &Authentication, given: &[String]) -> Result<Caller, Problem> {
    let mut headers = HeaderMap::new();
    for value in given {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    authentication.caller(&headers).await
}

pub(super) async fn bring(authentication: &Authentication, token: &str) -> Result<Caller, Problem> {
    ask(authentication, &[format!("Bearer {token}")]).await
}

/// Holds: No algorithm is believed because a token names it: each key has one.
#[tokio::test]
async fn every_bad_token_is_refused_with_the_same_words() {
    let signer = Signer::rs256("main");
    let jwks = json!({"keys": [signer.jwk()]}).to_string();
    let expected = format!("{:?}", Problem::unauthorized());
    for authentication in [by_key(&signer), by(Keys::from_jwks(jwks.as_bytes()), 30)] {
        let bad = bad_authorizations(&signer);
        assert!(bad.len() >= 60, "{}", bad.len());
        for (name, given) in bad {
            let refused = ask(&authentication, &given).await.expect_err(&name);
            assert_eq!(format!("{refused:?}"), expected, "{name}");
            // What is remembered of it changes nothing.
            assert!(ask(&authentication, &given).await.is_err(), "{name}");
        }
        assert!(bring(&authentication, &signer.token(json!({}))).await.is_ok());
    }
}

#[tokio::test]
async fn a_good_token_tells_who_calls_and_what_he_may() {
    let (rs, es, ed) = (Signer::rs256("rs"), Signer::es256("es"), Signer::eddsa("ed"));
    let set =
        json!({"keys": [rs.jwk(), es.jwk(), ed.jwk(), {"kty": "oct", "k": "AAAA", "kid": "rs"}, {"kty": "new"}, 5]});
    let by_set = by(Keys::from_jwks(set.to_string().as_bytes()), 30);
    for signer in [&rs, &es, &ed] {
        let claims = json!({"sub": "s", "aud": ["other", AUDIENCE], "scope": "a  b", "customerRef": "C-1", "nbf": 5});
        let token = signer.token(claims);
        for authentication in [&by_set, &by_key(signer)] {
            for _ in 0..2 {
                let caller = bring(authentication, &token).await.unwrap();
                assert_eq!((caller.issuer.as_str(), caller.subject.as_str()), (ISSUER, "s"));
                assert_eq!(caller.customer_ref.as_ref().unwrap().as_str(), "C-1");
                assert!(
                    caller.may("a") && caller.may("b") && !caller.may("") && !caller.may("a  b") && !caller.may("A")
                );
            }
        }
        let nothing = bring(&by_set, &signer.token(json!({"scope": null, "typ": "at+jwt"}))).await.unwrap();
        assert!(!nothing.may("orders:read") && nothing.customer_ref.is_none());
        for other in [&rs, &es, &ed].into_iter().filter(|other| other.kid != signer.kid) {
            let disguised = signer.token_with(json!({"kid": other.kid}), json!({}));
            assert!(bring(&by_set, &disguised).await.is_err(), "{} as {}", signer.kid, other.kid);
        }
        assert!(bring(&by_set, &signer.token_with(json!({"kid": null}), json!({}))).await.is_err(), "which key?");
    }
    let only = by(Keys::from_jwks(json!({"keys": [rs.jwk()]}).to_string().as_bytes()), 30);
    assert!(bring(&only, &rs.token_with(json!({"kid": null}), json!({}))).await.is_ok());
    let lower = format!("bearer {}", rs.token(json!({})));
    assert!(ask(&only, &[lower]).await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_remembered_ends_in_time_all_the_same() {
    let signer = Signer::es256("main");
    let authentication = by(Keys::from_pem(signer.public_key().as_bytes()), 0);
    let end = OffsetDateTime::now_utc().unix_timestamp() + 3;
    let token = signer.token(json!({"exp": end}));
    let begun = std::time::Instant::now();
    let first = bring(&authentication, &token).await;
    assert!(first.is_ok() || begun.elapsed().as_secs() >= 2);
    wait_until("it is refused", Duration::from_secs(30), async || bring(&authentication, &token).await.is_err()).await;
    assert!(OffsetDateTime::now_utc().unix_timestamp() >= end);
}

#[tokio::test]
async fn a_time_may_have_a_fraction_and_ends_where_it_says() {
    let signer = Signer::es256("main");
    let keys = Keys::from_pem(signer.public_key().as_bytes()).unwrap();
    let expected = expected(0);
    let good = |claims: Value, now: i64| {
        let text = signer.token(claims);
        Token::parse(&text).unwrap().verify(&keys, &expected, now).map(|(_, until)| until)
    };
    assert_eq!(good(json!({"exp": 100.5}), 100), Ok(101));
    assert_eq!(good(json!({"exp": 100.0}), 99), Ok(100));
    assert!(good(json!({"exp": 100.5}), 101).is_err() && good(json!({"exp": 100.0}), 100).is_err());
    assert!(good(json!({"exp": 200, "nbf": 100.5}), 100).is_err());
    assert!(good(json!({"exp": 200, "nbf": 100.5}), 101).is_ok());
    for never in [json!(1e300), json!(-0.5), json!(253_402_300_800.5)] {
        assert!(good(json!({ "exp": never }), 0).is_err(), "{never}");
    }
}

#[tokio::test]
async fn the_name_of_a_curve_is_the_name_of_its_algorithm() {
    let signer = Signer::eddsa("main");
    let mut named = signer.jwk();
    named["alg"] = "Ed25519".into();
    for jwk in [signer.jwk(), named] {
        let authentication = by(Keys::from_jwks(json!({ "keys": [jwk] }).to_string().as_bytes()), 30);
        for alg in ["EdDSA", "Ed25519"] {
            let token = signer.token_with(json!({ "alg": alg }), json!({}));
            assert!(bring(&authentication, &token).await.is_ok(), "{alg}");
        }
        for alg in ["ed25519", "Ed448", "ES256"] {
            let token = signer.token_with(json!({ "alg": alg }), json!({}));
            assert!(bring(&authentication, &token).await.is_err(), "{alg}");
        }
    }
    let rsa = Signer::rs256("main");
    assert!(bring(&by_key(&rsa), &rsa.token_with(json!({"alg": "Ed25519"}), json!({}))).await.is_err());
}

/// Of RSA, with 1024 bits.
const SMALL: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDNuKbh00Dt2vX/TogvttzdRf4B\n\
    LHx7/0R898HIj0NRfwzxHrzPqs24G0LqS0i71DpXLXYqiOhcNOmyHqEB/sCq88Yb\n\
    Ho5y7wTBBfw0Xz9qBEHqwkdH/2j3fhvPWrl/pWMxwGb7a9PyhfWBKWA9uV81uDq6\n\
    zxsX83dX2m0z9GiekQIDAQAB\n\
    -----END PUBLIC KEY-----";

#[test]
fn what_is_no_key_for_tokens_is_a_mistake() {
    let mut small = Signer::rs256("main").jwk();
    small["n"] = small["n"].as_str().unwrap()[..172].into();
    let mut encrypts = Signer::rs256("main").jwk();
    encrypts["use"] = "enc".into();
    let mut other = Signer::rs256("main").jwk();
    other["alg"] = "RS512".into();
    let mut short = Signer::es256("main").jwk();
    short["x"] = "AAAA".into();
    let sets: [Value; 9] = [
        json!({}),
        json!([]),
        json!({"keys": {}}),
        json!({"keys": []}),
        json!({"keys": [encrypts]}),
        json!({"keys": [other]}),
        json!({"keys": [short]}),
        json!({"keys": [small]}),
        json!({"keys": vec![Signer::eddsa("main").jwk(); 101]}),
    ];
    for set in sets {
        assert!(Keys::from_jwks(set.to_string().as_bytes()).is_err(), "{set}");
    }
    assert!(Keys::from_jwks(b"{").is_err());
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for text in ["", "nonsense", private, SMALL] {
        assert!(Keys::from_pem(text.as_bytes()).is_err(), "{text}");
    }
}

#[actix_web::test]
async fn a_route_that_nobody_guards_tells_no_caller() {
    let request = TestRequest::default().to_http_request();
    assert!(Caller::from_request(&request, &mut Payload::None).await.is_err());
}

proptest! {
    #[test]
    fn no_text_is_a_token_and_none_makes_it_panic(text in ".{0,200}") {
        prop_assert!(Token::parse(&text).is_err());
    }

    #[test]
    fn no_change_of_a_token_goes_unnoticed(at in any::<prop::sample::Index>(), new in "[A-Za-z0-9_.-]") {
        use std::sync::LazyLock;
        static GOOD: LazyLock<(Keys, String)> = LazyLock::new(|| {
            let signer = Signer::es256("main");
            (Keys::from_pem(signer.public_key().as_bytes()).unwrap(), signer.token(json!({})))
        });
        let (keys, good) = &*GOOD;
        let expected = expected(0);
        let mut changed = good.clone();
        let at = at.index(good.len());
        changed.replace_range(at..=at, &new);
        let verified = Token::parse(&changed).map(|token| token.verify(keys, &expected, 0));
        prop_assert_eq!(matches!(verified, Ok(Ok(_))), changed == *good);
    }
}
